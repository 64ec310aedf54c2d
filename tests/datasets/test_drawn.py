"""labelme, CVAT and Label Studio: what people drew, as boxes in pixels; what is no object is a row."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import ExifTags, Image

from pseudolabel import records
from pseudolabel.datasets import open_dataset
from pseudolabel.errors import InputError

Row = dict[str, Any]


def rows_of(root: Path, annotations: Path) -> tuple[Any, list[Row], list[Row]]:
    """The data set, its rows that are ok, and those that are rejected."""
    dataset = open_dataset("auto", images=root, annotations=annotations)
    rows = list(dataset.rows())
    records.table_from_rows(rows, records.MANIFEST)
    ok = [row for row in rows if row["status"] == "ok"]
    return dataset, ok, [row for row in rows if row["status"] == "rejected"]


def picture(path: Path, size: tuple[int, int] = (200, 100), orientation: int = 1) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    Image.new("RGB", size).save(path, exif=exif)
    return path


def boxes(row: Row) -> list[Any]:
    return [cell["bbox_xywh"] for cell in row["objects"]]


# --- labelme ---------------------------------------------------------------------------------------------------------


def shape(kind: str, points: Any, label: str = "cat", **more: Any) -> Row:
    return {"label": label, "points": points, "shape_type": kind, "group_id": None, "flags": {}, **more}


def labelme(folder: Path, *shapes: Any, image: str = "a.jpg", **more: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    content = {"version": "5.4", "flags": {}, "shapes": list(shapes), "imagePath": image, "imageData": None}
    content |= {"imageHeight": 100, "imageWidth": 200, **more}
    (folder / "a.json").write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize(
    ("one", "bbox"),
    [
        pytest.param(shape("rectangle", [[10, 20], [40, 60]]), [10, 20, 30, 40], id="rectangle"),
        pytest.param(shape("rectangle", [[40, 60], [10, 20]]), [10, 20, 30, 40], id="drawn from the far corner"),
        pytest.param(shape("rectangle", [[10, 20], [40, 20], [40, 60], [10, 60]]), [10, 20, 30, 40], id="four corners"),
        pytest.param(shape("polygon", [[10, 20], [40, 30], [15, 60]]), [10, 20, 30, 40], id="polygon"),
        pytest.param(shape("mask", [[10, 20], [39, 59]]), [10, 20, 30, 40], id="first and last pixel of a mask"),
        pytest.param(shape("circle", [[50, 50], [53, 54]]), [45, 45, 10, 10], id="circle of radius 5"),
        pytest.param(shape("rotation", [[50, 10], [90, 50], [50, 90], [10, 50]]), [10, 10, 80, 80], id="turned"),
    ],
)
def test_labelmes_areas_are_objects(tmp_path: Path, one: Row, bbox: list[float]) -> None:
    picture(tmp_path / "a.jpg")
    dataset, ok, rejected = rows_of(tmp_path, labelme(tmp_path / "json", one))
    assert not rejected
    assert dataset.categories == [{"id": 1, "name": "cat"}]
    assert boxes(ok[0]) == [bbox]
    assert (ok[0]["width"], ok[0]["height"]) == (200, 100)


@pytest.mark.parametrize(
    ("one", "reason"),
    [
        pytest.param(shape("point", [[1, 2]]), "bad_annotation", id="point"),
        pytest.param(shape("line", [[1, 2], [3, 4]]), "bad_annotation", id="line"),
        pytest.param(shape("rectangle", [[1, 2]]), "bad_box", id="one corner"),
        pytest.param(shape("rectangle", [[1, 2], ["x", 4]]), "bad_box", id="text"),
        pytest.param(shape("rectangle", [[1, 2], [1, 4]]), "empty_box", id="no width"),
        pytest.param(shape("rectangle", [[1, 2], [3, 4]], label=""), "no_such_category", id="no label"),
        pytest.param(7, "no_such_category", id="a number"),
    ],
)
def test_a_shape_that_is_no_object_is_a_row(tmp_path: Path, one: Any, reason: str) -> None:
    picture(tmp_path / "a.jpg")
    sound = shape("rectangle", [[10, 20], [40, 60]])
    _, ok, rejected = rows_of(tmp_path, labelme(tmp_path / "json", one, sound))
    assert [cell["annotation_id"] for cell in ok[0]["objects"]] == [2]
    assert [(row["annotation_id"], row["reason"]) for row in rejected] == [(1, reason)]


def test_shapes_of_one_group_are_one_object(tmp_path: Path) -> None:
    picture(tmp_path / "a.jpg")
    first = shape("polygon", [[10, 20], [40, 30], [15, 60]], group_id=1)
    second = shape("polygon", [[60, 10], [90, 10], [90, 30]], group_id=1)
    other = shape("polygon", [[1, 1], [2, 1], [2, 3]], label="dog", group_id=1)
    _, ok, _ = rows_of(tmp_path, labelme(tmp_path / "json", first, second, other))
    assert boxes(ok[0]) == [[10, 10, 80, 50], [1, 1, 1, 2]]
    assert len(json.loads(ok[0]["objects"][0]["segmentation"])) == 2


@pytest.mark.parametrize("path", ["..\\\\pictures\\\\a.jpg", "/home/me/a.jpg", "", "renamed.jpg"])
def test_labelmes_image_is_found_by_its_path_or_by_the_name_of_the_file(tmp_path: Path, path: str) -> None:
    picture(tmp_path / "a.jpg")
    one = shape("rectangle", [[10, 20], [40, 60]])
    _, ok, _ = rows_of(tmp_path, labelme(tmp_path / "json", one, image=path.replace("\\\\", "\\")))
    assert [row["file_name"] for row in ok] == ["a.jpg"]


def test_a_damaged_labelme_file_is_a_row_and_the_others_survive(tmp_path: Path) -> None:
    picture(tmp_path / "a.jpg")
    folder = labelme(tmp_path / "json", shape("rectangle", [[10, 20], [40, 60]]))
    (folder / "b.json").write_text("{")
    _, ok, rejected = rows_of(tmp_path, folder)
    assert len(ok) == 1
    assert [row["reason"] for row in rejected] == ["bad_record"]


# --- CVAT ------------------------------------------------------------------------------------------------------------


def cvat(path: Path, *shapes: str, name: str = "a.jpg") -> Path:
    image = f'<image id="0" name="{name}" width="200" height="100">{"".join(shapes)}</image>'
    path.write_text(f'<?xml version="1.0" encoding="utf-8"?><annotations><version>1.1</version>{image}</annotations>')
    return path


@pytest.mark.parametrize(
    ("one", "bbox"),
    [
        pytest.param('<box label="cat" xtl="10" ytl="20" xbr="40" ybr="60"/>', [10, 20, 30, 40], id="box"),
        pytest.param(
            '<box label="cat" xtl="10" ytl="20" xbr="40" ybr="60" rotation="90"/>', [5, 25, 40, 30], id="turned box"
        ),
        pytest.param('<polygon label="cat" points="10,20;40,30;15,60"/>', [10, 20, 30, 40], id="polygon"),
        pytest.param('<ellipse label="cat" cx="25" cy="40" rx="15" ry="20"/>', [10, 20, 30, 40], id="ellipse"),
        pytest.param(
            '<mask label="cat" rle="3, 2" left="10" top="20" width="30" height="40"/>', [10, 20, 30, 40], id="mask"
        ),
    ],
)
def test_cvats_areas_are_objects(tmp_path: Path, one: str, bbox: list[float]) -> None:
    picture(tmp_path / "images" / "a.jpg")
    _, ok, rejected = rows_of(tmp_path / "images", cvat(tmp_path / "x.xml", one))
    assert not rejected
    assert boxes(ok[0])[0] == pytest.approx(bbox)


def test_cvats_attributes_are_kept_and_what_is_no_object_is_a_row(tmp_path: Path) -> None:
    picture(tmp_path / "a.jpg")
    corners = 'xtl="10" ytl="20" xbr="40" ybr="60"'
    own = f'<box label="cat" occluded="1" {corners}><attribute name="age">3</attribute></box>'
    bad = ('<points label="cat" points="1,2"/>', f"<box {corners}/>", '<polygon label="cat" points="1,2;x"/>')
    _, ok, rejected = rows_of(tmp_path, cvat(tmp_path / "x.xml", own, *bad))
    assert json.loads(ok[0]["objects"][0]["extra"]) == {"attributes": {"age": "3", "occluded": "1"}}
    assert [row["reason"] for row in rejected] == ["bad_annotation", "no_such_category", "bad_box"]


def test_cvat_for_video_and_a_damaged_file_are_refused(tmp_path: Path) -> None:
    (tmp_path / "x.xml").write_text('<annotations><track id="0" label="cat"></track></annotations>')
    with pytest.raises(InputError, match="CVAT for video"):
        rows_of(tmp_path, tmp_path / "x.xml")
    (tmp_path / "x.xml").write_text("<annotations><image>")
    with pytest.raises(InputError, match="not XML"):
        rows_of(tmp_path, tmp_path / "x.xml")


# --- Label Studio ----------------------------------------------------------------------------------------------------


def region(kind: str = "rectanglelabels", label: str | None = "cat", **value: Any) -> Row:
    labels = {} if label is None else {kind: [label]}
    return {"type": kind, "original_width": 200, "original_height": 100, "value": {**value, **labels}}


def tasks(path: Path, *regions: Row, image: str = "/data/upload/1/77be01aa-a.jpg", member: str = "annotations") -> Path:
    content = [{"id": 5, "data": {"image": image}, member: [{"id": 1, "result": list(regions)}]}]
    path.write_text(json.dumps(content))
    return path


RECTANGLE = region(x=5, y=20, width=15, height=40, rotation=0)


@pytest.mark.parametrize(
    ("one", "bbox"),
    [
        pytest.param(RECTANGLE, [10, 20, 30, 40], id="rectangle"),
        pytest.param(region(x=25, y=20, width=15, height=40, rotation=90), [10, 20, 40, 30], id="turned rectangle"),
        pytest.param(region("polygonlabels", points=[[5, 20], [20, 30], [7, 60]]), [10, 20, 30, 40], id="polygon"),
        pytest.param(region("ellipselabels", x=12.5, y=40, radiusX=7.5, radiusY=20), [10, 20, 30, 40], id="ellipse"),
    ],
)
@pytest.mark.parametrize("member", ["annotations", "predictions"])
def test_label_studios_areas_are_objects_in_pixels(tmp_path: Path, one: Row, bbox: Any, member: str) -> None:
    picture(tmp_path / "images" / "a.jpg")
    dataset, ok, rejected = rows_of(tmp_path / "images", tasks(tmp_path / "x.json", one, member=member))
    assert not rejected
    assert boxes(ok[0])[0] == pytest.approx(bbox)
    assert json.loads(ok[0]["image_extra"])["own_id"] == 5
    assert any("predictions" in note for note in dataset.notes) == (member == "predictions")


def test_label_studios_per_cent_are_of_the_picture_that_was_shown(tmp_path: Path) -> None:
    picture(tmp_path / "images" / "a.jpg", size=(100, 200), orientation=6)  # shown as 200 x 100
    _, ok, _ = rows_of(tmp_path / "images", tasks(tmp_path / "x.json", RECTANGLE))
    assert boxes(ok[0])[0] == pytest.approx([10, 20, 30, 40])


def test_a_region_that_is_no_object_is_a_row_and_choices_are_none(tmp_path: Path) -> None:
    picture(tmp_path / "images" / "a.jpg")
    others = (region("brushlabels", rle=[1]), region(label=None, x=1, y=1, width=5, height=5), region(x=1, y="x"))
    choices = {"type": "choices", "value": {"choices": ["good"]}}
    _, ok, rejected = rows_of(tmp_path / "images", tasks(tmp_path / "x.json", *others, choices, RECTANGLE))
    assert [cell["annotation_id"] for cell in ok[0]["objects"]] == [4]
    assert [row["reason"] for row in rejected] == ["bad_annotation", "no_such_category", "bad_box"]


def test_of_several_annotations_the_first_that_was_not_cancelled_counts(tmp_path: Path) -> None:
    picture(tmp_path / "a.jpg")
    results = [{"was_cancelled": True, "result": []}, {"result": [RECTANGLE]}, {"result": [RECTANGLE, RECTANGLE]}]
    (tmp_path / "x.json").write_text(json.dumps([{"data": {"image": "a.jpg"}, "annotations": results}]))
    dataset, ok, _ = rows_of(tmp_path, tmp_path / "x.json")
    assert len(ok[0]["objects"]) == 1
    assert "1 tasks have several" in dataset.notes[0]
