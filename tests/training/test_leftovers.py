"""Files that training writes: their mode, and what dead processes left."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from pseudolabel.files import atomic_file, sweep_temporaries
from pseudolabel.training.checkpoint import save_model
from pseudolabel.training.leftovers import mark_in_use, sweep_abandoned


@pytest.mark.parametrize(
    ("umask", "mode"), [(0o022, 0o644), (0o027, 0o640), (0o002, 0o664)], ids=lambda value: oct(value)
)
def test_a_model_can_be_read_by_whom_the_umask_allows(tmp_path: Path, umask: int, mode: int) -> None:
    before = os.umask(umask)
    try:
        save_model(tmp_path / "teacher.safetensors", {"w": torch.zeros(1)}, {"method": "mal"})
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    assert modes == {"teacher.safetensors": mode, "teacher.yaml": mode}


def test_a_file_whose_writing_failed_is_what_it_was_before(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("old")

    def write_half() -> None:
        with atomic_file(path) as file:
            file.write(b"half")
            raise KeyError

    with pytest.raises(KeyError):
        write_half()
    assert [one.name for one in tmp_path.iterdir()] == ["a"]
    assert path.read_text() == "old"


@pytest.fixture
def dead_pid() -> int:
    """The number of a process that was."""
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    return done.pid


def test_only_temporaries_of_dead_processes_of_this_host_are_swept(tmp_path: Path, dead_pid: int) -> None:
    host = socket.gethostname()
    left = [f".a.{host}.{os.getpid()}.0000.tmp", f".a.elsewhere.{dead_pid}.0000.tmp", "a.tmp", ".a.tmp"]
    for name in [*left, f".a.{host}.{dead_pid}.0000.tmp", f".in-use.{host}.{dead_pid}.0000.tmp"]:
        (tmp_path / name).touch()
    sweep_temporaries(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == set(left)


def test_crops_of_abandoned_trainings_go_and_those_in_use_stay(tmp_path: Path, dead_pid: int) -> None:
    folders = {name: tmp_path / name for name in ("own", "alive", "dead", "unmarked", "elsewhere")}
    for folder in folders.values():
        folder.mkdir()
        (folder / "canvases-96.u8").touch()
        (folder / "step-00000005.ckpt").touch()
    mark = mark_in_use(folders["own"])
    mark_in_use(folders["alive"])
    (folders["dead"] / f".in-use.{socket.gethostname()}.{dead_pid}.0000.tmp").touch()
    (folders["elsewhere"] / f".in-use.elsewhere.{dead_pid}.0000.tmp").touch()
    sweep_abandoned(tmp_path, "canvases-*.u8")
    assert {path.parent.name for path in tmp_path.glob("*/*.u8")} == {"own", "alive", "elsewhere"}
    assert len(list(tmp_path.glob("*/*.ckpt"))) == 5
    assert mark.exists()
