"""`Labels`: arrays, choices, COCO and pictures of pseudo labels."""

import json
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

import pseudolabel as pl
from pseudolabel import records
from pseudolabel.candidates import ManifestImage
from pseudolabel.errors import ConfigError
from pseudolabel.labels import Labels
from pseudolabel.rle import encode

SIZE_HW = (20, 30)
CATEGORIES = [{"id": 3, "name": "cat"}, {"id": 7, "name": "dog"}]


def _row(key: str, number: int, x: int, *, category: int = 3, score: float, decision: str) -> dict[str, object]:
    mask = np.zeros(SIZE_HW, dtype=bool)
    mask[4:9, x : x + 6] = True
    return {
        "image_key": key, "annotation_id": number, "category_id": category, "segmentation": encode(mask),
        "bbox_xywh": [float(x), 4.0, 6.0, 5.0], "source_bbox_xywh": [x - 1.0, 3.0, 8.0, 7.0], "area": 30,
        "iscrowd": False, "score": score, "decision": decision, **records.ok("fuse"),
    }  # fmt: skip


@pytest.fixture
def labels() -> Labels:
    rows = [
        _row("a.jpg", 11, 2, score=0.9, decision="keep"),
        _row("a.jpg", 12, 12, category=7, score=0.5, decision="review"),
        _row("b.jpg", 13, 20, score=0.25, decision="box_only") | {"calibrated_iou": 0.75},
    ]
    images = {key: ManifestImage(key, key, SIZE_HW, (), number) for number, key in enumerate(["a.jpg", "b.jpg"], 1)}
    pixels = np.zeros((*SIZE_HW, 3), dtype=np.uint8)
    return Labels(records.table_from_rows(rows, records.PSEUDO), images, CATEGORIES, lambda _: pixels)


def test_arrays_have_a_line_for_every_object(labels: Labels) -> None:
    assert len(labels) == 3
    np.testing.assert_array_equal(labels.boxes, [[2, 4, 8, 9], [12, 4, 18, 9], [20, 4, 26, 9]])
    np.testing.assert_array_equal(labels.given_boxes[0], [1, 3, 9, 10])
    np.testing.assert_allclose(labels.scores, [0.9, 0.5, 0.75])  # the calibrated one where there is one
    assert labels.decisions == ["keep", "review", "box_only"]
    assert labels.class_names == ["cat", "dog", "cat"]
    assert labels.annotation_ids == [11, 12, 13]


def test_masks_are_those_of_one_image_at_its_size(labels: Labels) -> None:
    masks = labels.masks("a.jpg")
    assert masks.shape == (2, *SIZE_HW)
    assert masks.dtype == np.bool_
    assert (masks[0, 4:9, 2:8].all(), masks[0].sum()) == (True, 30)
    assert labels.filter(image="b.jpg", decision="keep").masks().shape == (0, *SIZE_HW)
    with pytest.raises(ConfigError, match=r"there are 2 images: name one, such as 'a.jpg'"):
        labels.masks()
    with pytest.raises(ConfigError, match=r"no image is called 'c.jpg'"):
        labels.masks("c.jpg")


@pytest.mark.parametrize(
    ("chosen", "ids"),
    [
        ({"decision": "keep"}, [11]),
        ({"decision": ["keep", "review"]}, [11, 12]),
        ({"min_score": 0.7}, [11, 13]),
        ({"class_name": "cat"}, [11, 13]),
        ({"image": "a.jpg", "min_score": 0.6}, [11]),
        ({}, [11, 12, 13]),
    ],
    ids=str,
)
def test_a_filter_keeps_what_all_its_words_say(labels: Labels, chosen: dict[str, object], ids: list[int]) -> None:
    assert labels.filter(**chosen).annotation_ids == ids  # type: ignore[arg-type]


def test_a_slice_of_labels_is_labels(labels: Labels) -> None:
    assert labels[1:].annotation_ids == labels.annotation_ids[1:]
    assert labels[::-1].annotation_ids == labels.annotation_ids[::-1]
    assert labels[-1] == list(labels)[-1]
    assert len(labels[9:]) == 0


def test_a_filter_by_an_unknown_word_names_the_nearest(labels: Labels) -> None:
    with pytest.raises(ConfigError, match="no decision is called 'keeep'; did you mean 'keep'"):
        labels.filter(decision="keeep")
    with pytest.raises(ConfigError, match="no class is called 'dgo'; did you mean 'dog'"):
        labels.filter(class_name="dgo")


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        pytest.param({"min_score": "a"}, "filter: min_score: Input should be a valid number", id="score, a text"),
        pytest.param({"min_score": float("nan")}, "filter: min_score: Input should be a finite", id="score, no number"),
        pytest.param({"decision": 3}, "filter: decision: Input should be a valid list", id="decision, a number"),
        pytest.param({"decision": [3]}, "filter: decision.0: Input should be a valid string", id="decisions, numbers"),
        pytest.param({"class_name": ["cat"]}, "filter: class_name: Input should be a valid string", id="classes"),
        pytest.param({"image": 1}, "filter: image: Input should be a valid string", id="image, a number"),
    ],
)
def test_a_filter_by_another_type_names_the_argument_and_what_it_takes(
    labels: Labels, asked: dict[str, Any], told: str
) -> None:
    with pytest.raises(ConfigError, match=told):
        labels.filter(**asked)


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        pytest.param({"object": "a"}, "show: object: Input should be a valid integer", id="object, a text"),
        pytest.param({"scale": -1}, "show: scale: Input should be greater than 0", id="scale below 0"),
        pytest.param({"scale": 1e9}, "show: scale: Input should be less than", id="scale without end"),
        pytest.param({"objects": 1.5}, "show: objects: Input should be a valid integer", id="half an object"),
        pytest.param({"image": ["a.jpg"]}, "show: image: Input should be a valid string", id="images"),
    ],
)
def test_a_picture_by_another_type_names_the_argument_and_what_it_takes(
    labels: Labels, asked: dict[str, Any], told: str
) -> None:
    with pytest.raises(ConfigError, match=told):
        labels.show(**asked)


def test_numbers_of_numpy_are_numbers(labels: Labels) -> None:
    assert labels.filter(min_score=float(np.float32(0.8)), decision=("keep", "review")).annotation_ids == [11]
    assert labels.filter(min_score=np.float32(0.8)).annotation_ids == [11]
    assert labels.show("a.jpg", scale=np.float32(2)).size == (60, 40)
    with pytest.raises(ConfigError, match="image: expected a name, got 3"):
        labels.masks(cast(Any, 3))


def test_labels_are_gone_through_one_by_one_and_by_place(labels: Labels) -> None:
    first, _, last = labels
    assert (first.image, first.class_name, first.box_xyxy) == ("a.jpg", "cat", (2.0, 4.0, 8.0, 9.0))
    assert first.mask.sum() == 30
    assert labels[-1] == last
    assert last.score == 0.75
    with pytest.raises(IndexError):
        labels[3]


def test_coco_has_the_images_and_every_label_with_its_decision(labels: Labels) -> None:
    content = labels.to_coco()
    assert [row["file_name"] for row in content["images"]] == ["a.jpg", "b.jpg"]
    assert [row["id"] for row in content["annotations"]] == [11, 12, 13]
    assert [row["image_id"] for row in content["annotations"]] == [1, 1, 2]
    assert content["annotations"][1]["attributes"]["decision"] == "review"
    assert content["categories"] == CATEGORIES
    assert labels.to_arrow().schema == records.PSEUDO


def test_pictures_are_drawn_of_one_image_and_a_notebook_shows_it(labels: Labels) -> None:
    picture = labels.show("a.jpg", scale=3)
    assert picture.size == (90, 60)
    assert np.asarray(picture).any()
    assert labels._repr_png_() is None
    shown = labels.filter(image="a.jpg")._repr_png_()
    assert shown is not None
    assert shown.startswith(b"\x89PNG")
    assert repr(labels) == "<Labels: 3 objects on 2 images: 1 keep, 1 review, 1 box_only>"
    with pytest.raises(ConfigError, match="know no pixels"):
        Labels(labels.table, labels.images, CATEGORIES).show("a.jpg")


def test_labels_are_their_own_truth(labels: Labels, tmp_path: Path) -> None:
    truth = tmp_path / "truth.json"
    truth.write_text(json.dumps(labels.to_coco()))
    figures = pl.evaluate(labels, truth)
    assert (figures["mean_iou"], figures["n"]) == (1.0, 3)
    assert pl.evaluate(labels.filter(image="a.jpg"), truth)["mean_iou"] == pytest.approx(2 / 3)
    assert pl.evaluate(labels.to_coco(), truth)["mean_iou"] == pl.evaluate(truth, truth)["mean_iou"] == 1.0


def test_of_several_images_a_sheet_of_objects_is_shown_from_the_worst_to_the_best(labels: Labels) -> None:
    sheet = labels.show()
    assert sheet.width == 6 * 192
    assert labels.show(objects=1).size == (6 * 192, 192)
    one = labels.annotation_ids[0]
    assert labels.show(object=one).size == (640, 640)
    assert np.asarray(labels.show(object=one)).any()
    with pytest.raises(ConfigError, match="no object has the annotation id 987654"):
        labels.show(object=987654)
    with pytest.raises(ConfigError, match="no object to show"):
        labels.filter(min_score=1.01).show()
