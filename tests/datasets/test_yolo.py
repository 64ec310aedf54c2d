"""YOLO: fractions become pixels by the image's own size, names come from the file, one bad line is one row."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import ExifTags, Image

from pseudolabel import records
from pseudolabel.datasets import ReadOptions, open_dataset
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
    options = ReadOptions(exif=exif)
    rows = list(open_dataset("yolo", images=root / "images", annotations=annotations, options=options).rows())
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
    annotations = data_set(tmp_path, "")
    Image.new("RGB", (20, 10)).save(tmp_path / "images" / "b.png")
    dataset = open_dataset("yolo", images=tmp_path / "images", annotations=annotations)
    assert [row["objects"] for row in dataset.rows()] == [[], []]
    assert dataset.notes == ["1 of 2 images have no label file and so no objects, such as b.png"]


def test_images_of_which_none_has_a_label_file_are_refused_with_the_nearest(tmp_path: Path) -> None:
    annotations = data_set(tmp_path)
    (tmp_path / "images" / "txt").mkdir()
    (tmp_path / "images" / "txt" / "a.txt").write_text("0 0.5 0.5 0.1 0.1")
    with pytest.raises(
        InputError, match=r"0 of 1 images .* have a label file; a\.png wants .*labels/a\.txt; there is .*txt/a"
    ):
        open_dataset("yolo", images=tmp_path / "images", annotations=annotations)


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
    dataset = open_dataset("yolo", images=tmp_path, annotations=data_set(tmp_path, "", names=names))
    assert [(c["id"], c["name"]) for c in dataset.categories] == expected


def test_names_are_found_beside_the_labels(tmp_path: Path) -> None:
    data_set(tmp_path, "1 0.5 0.5 0.5 0.5").unlink()
    (tmp_path / "labels" / "classes.txt").write_text("cat\ndog\n")
    dataset = open_dataset("yolo", images=tmp_path / "images", annotations=tmp_path / "labels")
    assert [c["name"] for c in dataset.categories] == ["cat", "dog"]
    assert next(iter(dataset.rows()))["objects"][0]["category_id"] == 1


@pytest.mark.parametrize(
    "names", ["names: 5", "[]", "names: {a: cat}", "names: [[1], 2]", "names: [", "x: 1", "names: []"]
)
def test_names_that_make_no_sense_are_an_error(tmp_path: Path, names: str) -> None:
    with pytest.raises(InputError, match=r"data\.yaml"):
        open_dataset("yolo", images=tmp_path, annotations=data_set(tmp_path, names=names))


def test_missing_names_are_an_error(tmp_path: Path) -> None:
    data_set(tmp_path).unlink()
    with pytest.raises(InputError, match="no class names"):
        open_dataset("yolo", images=tmp_path / "images", annotations=tmp_path / "labels")


@pytest.mark.parametrize(
    ("line", "bbox", "confidence", "mask"),
    [
        pytest.param("0 0.5 0.5 0.5 0.5 0.75", [50, 25, 100, 50], 0.75, False, id="box"),
        pytest.param("0.0 0.5 0.5 0.5 0.5", [50, 25, 100, 50], None, False, id="class as 0.0"),
        pytest.param("0 0.1 0.1 0.5 0.1 0.5 0.4 0.3", [20, 10, 80, 30], 0.3, True, id="polygon"),
        pytest.param("0 0.5 0 1 0.5 0.5 1 0 0.5", [0, 0, 200, 100], None, False, id="turned box"),
        pytest.param("0 0.5 0 1 0.5 0.5 1 0 0.5 0.25", [0, 0, 200, 100], 0.25, False, id="turned box, confidence"),
    ],
)
def test_a_confidence_may_stand_behind_a_box_or_polygon(
    tmp_path: Path, line: str, bbox: list[float], confidence: float | None, mask: bool
) -> None:
    cell = rows_of(tmp_path, data_set(tmp_path, line))[0]["objects"][0]
    assert cell["bbox_xywh"] == pytest.approx(bbox)
    assert json.loads(cell["extra"] or "{}").get("confidence") == confidence
    assert (cell["segmentation"] is not None) == mask


def test_key_points_behind_a_box_are_passed_over(tmp_path: Path) -> None:
    names = "names: [cat]\nkpt_shape: [2, 3]\n"
    cell = rows_of(tmp_path, data_set(tmp_path, "0 0.5 0.5 0.5 0.5 0.1 0.1 2 0.2 0.2 0", names=names))[0]["objects"][0]
    assert cell["bbox_xywh"] == [50, 25, 100, 50]


def roboflow(root: Path, train: str = "../train/images") -> Path:
    """Roboflow's zip: train/images, train/labels, valid/..., data.yaml."""
    for split, x in (("train", 0.25), ("valid", 0.5)):
        (root / split / "images").mkdir(parents=True)
        (root / split / "labels").mkdir()
        Image.new("RGB", (200, 100)).save(root / split / "images" / f"{split}.jpg")
        (root / split / "labels" / f"{split}.txt").write_text(f"0 {x} 0.5 0.5 0.5")
    (root / "data.yaml").write_text(f"train: {train}\nval: ../valid/images\nnc: 1\nnames: [cat]\n")
    return root


@pytest.mark.parametrize(
    ("images", "annotations", "expected"),
    [
        pytest.param(".", "data.yaml", {"train": [0, 25, 100, 50], "val": [50, 25, 100, 50]}, id="the folder"),
        pytest.param(".", ".", {"train": [0, 25, 100, 50], "val": [50, 25, 100, 50]}, id="the folder twice"),
        pytest.param("valid/images", "data.yaml", {"val": [50, 25, 100, 50]}, id="one split"),
        pytest.param("valid/images", "valid/labels", {"val": [50, 25, 100, 50]}, id="its labels"),
    ],
)
def test_roboflows_layout_is_understood(tmp_path: Path, images: str, annotations: str, expected: Any) -> None:
    root = roboflow(tmp_path / "ds")
    rows = list(open_dataset("auto", images=root / images, annotations=root / annotations).rows())
    assert {row["split"]: row["objects"][0]["bbox_xywh"] for row in rows} == expected


@pytest.mark.parametrize("listed", ["images/train/x.png", "./images/train/x.png"])
def test_ultralytics_layout_is_understood_with_folders_and_lists(tmp_path: Path, listed: str) -> None:
    for split in ("train", "val"):
        (tmp_path / "images" / split).mkdir(parents=True)
        (tmp_path / "labels" / split).mkdir(parents=True)
        Image.new("RGB", (200, 100)).save(tmp_path / "images" / split / "x.png")
        (tmp_path / "labels" / split / "x.txt").write_text("0 0.5 0.5 0.5 0.5")
    (tmp_path / "train.txt").write_text(f"{listed}\n")
    (tmp_path / "data.yaml").write_text("path: .\ntrain: train.txt\nval: [images/val]\nnames: {0: cat}\n")
    rows = list(open_dataset("auto", images=tmp_path / "images", annotations=tmp_path / "data.yaml").rows())
    assert [(row["file_name"], row["split"], len(row["objects"])) for row in rows] == [
        ("train/x.png", "train", 1), ("val/x.png", "val", 1),
    ]  # fmt: skip


def test_labels_named_after_the_whole_image_name_are_found(tmp_path: Path) -> None:
    annotations = data_set(tmp_path)
    (tmp_path / "labels" / "a.png.txt").write_text("0 0.5 0.5 0.5 0.5")
    assert len(rows_of(tmp_path, annotations)[0]["objects"]) == 1


@pytest.mark.parametrize("given", ["obj.data", "obj.names", "train.txt", "."])
def test_darknets_and_cvats_files_are_understood_whichever_is_given(tmp_path: Path, given: str) -> None:
    images = tmp_path / "obj_train_data"
    images.mkdir()
    Image.new("RGB", (200, 100)).save(images / "a.jpg")
    (images / "a.txt").write_text("1 0.5 0.5 0.5 0.5")
    (tmp_path / "obj.names").write_text("cat\ndog\n")
    (tmp_path / "obj.data").write_text("classes = 2\ntrain = data/train.txt\nnames = data/obj.names\n")
    (tmp_path / "train.txt").write_text("data/obj_train_data/a.jpg\n")
    dataset = open_dataset("auto", images=images, annotations=tmp_path / given)
    assert [row["name"] for row in dataset.categories] == ["cat", "dog"]
    assert next(iter(dataset.rows()))["objects"][0]["category_id"] == 1


def test_a_list_of_images_never_becomes_the_class_list(tmp_path: Path) -> None:
    data_set(tmp_path, "0 0.5 0.5 0.5 0.5").unlink()
    (tmp_path / "train.txt").write_text("data/a.png\ndata/b.png\n")
    for name in ("train.txt", "classes.txt"):
        (tmp_path / "classes.txt").write_text("data/a.png\n")
        with pytest.raises(InputError, match="lists images"):
            open_dataset("yolo", images=tmp_path / "images", annotations=tmp_path / name)
