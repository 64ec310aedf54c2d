"""A bare folder: what counts as an image, in which order, under which key."""

import os
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from pseudolabel import records
from pseudolabel.datasets import detect_format, open_dataset
from pseudolabel.errors import ConfigError, InputError


def picture(path: Path, format: str = "PNG") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 3)).save(path, format)


def rows_of(root: Path) -> list[dict[str, Any]]:
    rows = list(open_dataset("folder", images=root).rows())
    records.table_from_rows(rows, records.MANIFEST)
    return rows


def test_images_are_found_at_every_depth_and_sorted_by_path(tmp_path: Path) -> None:
    for name in ("b.png", "a/z.JPG", "a/b/c.tif", "B.webp"):
        picture(tmp_path / name)
    rows = rows_of(tmp_path)
    assert [row["image_key"] for row in rows] == ["B.webp", "a/b/c.tif", "a/z.JPG", "b.png"]
    assert [row["image_id"] for row in rows] == [1, 2, 3, 4]
    assert all(row["objects"] == [] and row["width"] is None and row["status"] == "ok" for row in rows)


def test_content_makes_an_image_of_a_file_without_a_telling_name(tmp_path: Path) -> None:
    picture(tmp_path / "scan")
    picture(tmp_path / "photo.dat", "JPEG")
    (tmp_path / "notes.txt").write_text("not a picture")
    (tmp_path / "empty").touch()
    (tmp_path / ".hidden.png").write_bytes(b"x")
    os.mkfifo(tmp_path / "pipe")
    dataset = open_dataset("folder", images=tmp_path)
    assert [row["image_key"] for row in dataset.rows()] == ["photo.dat", "scan"]
    assert dataset.ignored_files == 3  # type: ignore[attr-defined]


def test_files_that_are_named_like_images_are_never_passed_over(tmp_path: Path) -> None:
    names = ["a.jpg", "b.heic", "c.svg", "d.eps"]
    for name in names:
        (tmp_path / name).touch()
    assert [row["image_key"] for row in rows_of(tmp_path)] == names


def test_a_name_that_is_not_utf8_is_a_row_with_an_escape(tmp_path: Path) -> None:
    with open(os.fsencode(tmp_path) + b"/\xff.png", "wb"):
        pass
    picture(tmp_path / "a.png")
    rows = rows_of(tmp_path)
    assert [(row["image_key"], row["reason"]) for row in rows] == [("a.png", None), ("\\xff.png", "bad_name")]


def test_a_link_to_a_folder_is_seen_and_not_followed(tmp_path: Path) -> None:
    root = tmp_path / "images"
    picture(root / "a.png")
    picture(tmp_path / "elsewhere" / "b.png")
    (root / "link").symlink_to(tmp_path / "elsewhere")
    (root / "circle").symlink_to(root)
    rows = rows_of(root)
    assert [(row["image_key"], row["reason"]) for row in rows] == [
        ("a.png", None), ("circle", "not_a_file"), ("link", "not_a_file"),
    ]  # fmt: skip


def test_annotations_for_a_bare_folder_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="bare folder"):
        open_dataset("folder", images=tmp_path, annotations=tmp_path)


def test_missing_folders_and_unknown_formats_are_errors(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder of images"):
        open_dataset("folder", images=tmp_path / "none")
    with pytest.raises(InputError, match="no such file"):
        open_dataset("coco", images=tmp_path, annotations=tmp_path / "none.json")
    with pytest.raises(ConfigError, match="did you mean 'coco'"):
        open_dataset("cocoo", images=tmp_path)


def test_the_format_is_told_by_what_is_there(tmp_path: Path) -> None:
    assert detect_format(None) == "folder"
