"""YOLO: fractions become pixels by the image's own size, names come from the file, one bad line is one row."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import ExifTags, Image

from pseudolabel import records
from pseudolabel.datasets import open_dataset
from pseudolabel.errors import InputError


def data_set(root: Path, lines: str | None = None, names: str = "names: [cat, dog]\n") -> Path:
    (root / "images").mkdir(exist_ok=True)
    (root / "labels").mkdir(exist_ok=True)
    Image.new("RGB", (200, 100)).save(root / "images" / "a.png")
    if lines is not None:
        (root / "labels" / "a.txt").write_text(lines)
    (root / "data.yaml").write_text(names)
    return root / "data.yaml"


def rows_of(root: Path, annotations: Path | None, exif: Any = "transpose") -> list[dict[str, Any]]:
    rows = list(open_dataset("yolo", images=root / "images", annotations=annotations, exif=exif).rows())
    records.table_from_rows(rows, records.MANIFEST)
    return rows


def test_fractions_become_pixels(tmp_path: Path) -> None:
    rows = rows_of(tmp_path, data_set(tmp_path, "1 0.5 0.5 0.25 0.5\n\n0 0.25 0.25 0.5 0.5\n"))
    cells = rows[0]["objects"]
    assert [cell["bbox_xywh"] for cell in cells] == [[75, 25, 50, 50], [0, 0, 100, 50]]
    assert [(cell["annotation_id"], cell["category_id"]) for cell in cells] == [(1, 1), (2, 0)]
    assert (rows[0]["width"], rows[0]["height"]) == (200, 100)


def test_a_polygon_gives_box_and_segmentation(tmp_path: Path) -> None:
    cell = rows_of(tmp_path, data_set(tmp_path, "0 0.1 0.1 0.5 0.1 0.5 0.4"))[0]["objects"][0]
    assert cell["bbox_xywh"] == pytest.approx([20, 10, 80, 30])
    assert json.loads(cell["segmentation"])[0] == pytest.approx([20, 10, 100, 10, 100, 40])


def test_an_image_without_labels_has_no_objects(tmp_path: Path) -> None:
    assert rows_of(tmp_path, data_set(tmp_path))[0]["objects"] == []
    assert rows_of(tmp_path, data_set(tmp_path, ""))[0]["objects"] == []


@pytest.mark.parametrize(("exif", "bbox"), [("transpose", [0, 0, 50, 100]), ("ignore", [0, 0, 100, 50])])
def test_fractions_are_of_the_picture_that_the_exif_rule_gives(tmp_path: Path, exif: str, bbox: list[float]) -> None:
    annotations = data_set(tmp_path, "0 0.25 0.25 0.5 0.5")
    tag = Image.Exif()
    tag[ExifTags.Base.Orientation] = 6
    Image.new("RGB", (200, 100)).save(tmp_path / "images" / "a.png", exif=tag)
    assert rows_of(tmp_path, annotations, exif)[0]["objects"][0]["bbox_xywh"] == bbox


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        pytest.param("2 0.5 0.5 0.1 0.1", "no_such_category", id="unknown class"),
        pytest.param("cat 0.5 0.5 0.1 0.1", "no_such_category", id="class by name"),
        pytest.param("-1 0.5 0.5 0.1 0.1", "no_such_category", id="negative class"),
        pytest.param("0 100 50 20 20", "bad_box", id="pixels"),
        pytest.param("0 0.5 0.5 nan 0.1", "bad_box", id="nan"),
        pytest.param("0 0.5 0.5 0 0.1", "empty_box", id="no width"),
        pytest.param("0 0.5 x 0.1 0.1", "bad_box", id="text"),
        pytest.param("0 0.5 0.5 0.1", "bad_annotation", id="three numbers"),
        pytest.param("0 0.5 0.5 0.1 0.1 0.9", "bad_annotation", id="five numbers"),
        pytest.param("0", "bad_annotation", id="class alone"),
    ],
)
def test_a_bad_line_is_a_row_and_the_others_survive(tmp_path: Path, line: str, reason: str) -> None:
    rows = rows_of(tmp_path, data_set(tmp_path, f"{line}\n0 0.5 0.5 0.5 0.5"))
    assert [cell["annotation_id"] for cell in rows[0]["objects"]] == [2]
    assert [(row["annotation_id"], row["reason"]) for row in rows[1:]] == [(1, reason)]


def test_lines_of_an_image_that_cannot_be_opened_are_rows_too(tmp_path: Path) -> None:
    annotations = data_set(tmp_path, "0 0.5 0.5 0.5 0.5")
    (tmp_path / "images" / "a.png").write_text("no picture")
    rows = rows_of(tmp_path, annotations)
    assert [row["reason"] for row in rows] == ["unsupported_format", "image_rejected"]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        pytest.param("names: [cat, dog]", [(0, "cat"), (1, "dog")], id="list"),
        pytest.param("nc: 2\nnames:\n  0: cat\n  5: dog\n", [(0, "cat"), (5, "dog")], id="numbers"),
    ],
)
def test_names_are_a_list_or_numbered(tmp_path: Path, names: str, expected: list[tuple[int, str]]) -> None:
    dataset = open_dataset("yolo", images=tmp_path, annotations=data_set(tmp_path, names=names))
    assert [(c["id"], c["name"]) for c in dataset.categories] == expected


def test_names_are_found_beside_the_labels(tmp_path: Path) -> None:
    data_set(tmp_path, "1 0.5 0.5 0.5 0.5").unlink()
    (tmp_path / "labels" / "classes.txt").write_text("cat\ndog\n")
    dataset = open_dataset("yolo", images=tmp_path / "images", annotations=tmp_path / "labels")
    assert [c["name"] for c in dataset.categories] == ["cat", "dog"]
    assert next(iter(dataset.rows()))["objects"][0]["category_id"] == 1


@pytest.mark.parametrize(
    "names", ["names: 5", "[]", "names: {a: cat}", "names: [1, 2]", "names: [", "x: 1", "names: []"]
)
def test_names_that_make_no_sense_are_an_error(tmp_path: Path, names: str) -> None:
    with pytest.raises(InputError, match=r"data\.yaml"):
        open_dataset("yolo", images=tmp_path, annotations=data_set(tmp_path, names=names))


def test_missing_names_are_an_error(tmp_path: Path) -> None:
    data_set(tmp_path).unlink()
    with pytest.raises(InputError, match="no class names"):
        open_dataset("yolo", images=tmp_path / "images", annotations=tmp_path / "labels")
