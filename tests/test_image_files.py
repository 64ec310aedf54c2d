"""Image files by name: none leads out of the folder or blocks, and a fault of the machine is not the image's."""

import errno
import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pseudolabel import images
from pseudolabel.errors import RejectError
from pseudolabel.pixel_rule import PixelRule
from pseudolabel.sources.folder import check_name

PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 48, 3), dtype=np.uint8))


def _png() -> bytes:
    stream = io.BytesIO()
    PICTURE.save(stream, "PNG")
    return stream.getvalue()


PNG = _png()


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        pytest.param("../secret.png", "outside_root", id="parent"),
        pytest.param("a/../../secret.png", "outside_root", id="parent within"),
        pytest.param("/etc/passwd", "outside_root", id="absolute"),
        pytest.param("..\\secret.png", "bad_name", id="backslash"),
        pytest.param("http://example.org/a.png", "bad_name", id="url"),
        pytest.param("a\0.png", "bad_name", id="nul"),
        pytest.param("", "bad_name", id="empty"),
        pytest.param(".", "bad_name", id="dot"),
        pytest.param("x" * 5000, "bad_name", id="5000 characters"),
        pytest.param("\udcff.png", "bad_name", id="half a character"),
        pytest.param("~/a.png", "missing", id="home"),
        pytest.param("$HOME/a.png", "missing", id="variable"),
        pytest.param("pipe:ls", "missing", id="pipe"),
        pytest.param("folder", "not_a_file", id="folder"),
        pytest.param("good.png/more.png", "missing", id="below a file"),
        pytest.param("out.png", "outside_root", id="link out"),
        pytest.param("out/secret.png", "outside_root", id="linked folder out"),
        pytest.param("loop.png", "not_a_file", id="looping link"),
        pytest.param("nowhere.png", "missing", id="dangling link"),
        pytest.param("device.png", "outside_root", id="link to a device"),
        pytest.param("pipe.png", "not_a_file", id="named pipe"),
        pytest.param("empty.png", "empty_file", id="empty file"),
        pytest.param("sparse.png", "too_large", id="6 GB of nothing"),
    ],
)
def test_no_name_leaves_the_folder_or_blocks(tmp_path: Path, name: Any, reason: str) -> None:
    root = tmp_path / "images"
    (root / "folder").mkdir(parents=True)
    (tmp_path / "secret.png").write_bytes(PNG)
    (root / "good.png").write_bytes(PNG)
    (root / "empty.png").touch()
    (root / "out.png").symlink_to(tmp_path / "secret.png")
    (root / "out").symlink_to(tmp_path)
    (root / "loop.png").symlink_to(root / "loop.png")
    (root / "nowhere.png").symlink_to(root / "not there.png")
    (root / "device.png").symlink_to("/dev/zero")
    os.mkfifo(root / "pipe.png")
    with (root / "sparse.png").open("wb") as file:
        file.truncate(6 << 30)
    with pytest.raises(RejectError) as caught:
        images.read_file(root, name)
    assert caught.value.reason == reason


@pytest.mark.parametrize("name", [7, None, True, ["a.png"], {}, b"a.png"])
def test_what_is_no_text_is_no_name(name: object) -> None:
    with pytest.raises(RejectError, match="bad_name"):
        check_name(name)


ODD_NAMES = ["a b.png", "-x.png", "$(ls).png", "{0}.png", "a\nb.png", "e\u0301.png", "é.png", "🐈.png", "'\".png"]
ODD_NAMES += ["\u202egnp.png", "2020-01-01T10:00.png", "x" * 251 + ".png"]


@pytest.mark.parametrize("name", ODD_NAMES)
def test_odd_names_are_names(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(PNG)
    assert check_name(name) == name
    assert np.array_equal(images.load_image(tmp_path, name, rule=PixelRule("transpose")), np.array(PICTURE))


def test_a_link_that_stays_in_the_folder_is_followed(tmp_path: Path) -> None:
    (tmp_path / "real.png").write_bytes(PNG)
    (tmp_path / "link.png").symlink_to("real.png")
    assert images.read_file(tmp_path, "link.png") == PNG


@pytest.mark.parametrize("code", [errno.EIO, errno.ESTALE, errno.EMFILE, errno.ENOMEM])
def test_a_fault_of_the_machine_is_no_fault_of_the_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def fails(*_: Any) -> int:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "open", fails)
    with pytest.raises(OSError, match=os.strerror(code)) as caught:
        images.read_file(tmp_path, "a.png")
    assert caught.value.errno == code


def test_a_file_that_may_not_be_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(*_: Any) -> int:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "open", denied)  # root reads everything, so a file mode would prove nothing
    with pytest.raises(RejectError, match="permission"):
        images.read_file(tmp_path, "a.png")
