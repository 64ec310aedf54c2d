"""What becomes of pseudo labels: roles, weights, thresholds, and what is refused."""

import json

import numpy as np
import pytest

from pseudolabel import rle
from pseudolabel.errors import InputError
from pseudolabel.students.config import LabelConfig
from pseudolabel.students.data import make_sample
from pseudolabel.students.labels import check_masks, labels_from_coco, labels_from_rows

SIZE = (8, 10)
CATEGORIES = [{"id": 7, "name": "cell"}, {"id": 3, "name": "dust"}]


def square(x0: int, y0: int, side: int = 3) -> dict:
    mask = np.zeros(SIZE, dtype=bool)
    mask[y0 : y0 + side, x0 : x0 + side] = True
    return dict(rle.encode(mask))


def image(key: str = "a", **changes) -> dict:
    row = {"image_key": key, "image_id": 5, "file_name": f"{key}.png", "width": 10, "height": 8}
    return {**row, "status": "ok", "annotation_id": None, **changes}


def pseudo(**changes) -> dict:
    row = {"image_key": "a", "annotation_id": 1, "category_id": 7, "segmentation": square(1, 1)}
    row |= {"bbox_xywh": [1, 1, 3, 3], "source_bbox_xywh": [1, 1, 4, 4], "iscrowd": False}
    row |= {"score": 0.4, "calibrated_iou": None, "decision": "keep", "status": "ok"}
    return {**row, **changes}


def only(row: dict, **config):
    labels = labels_from_rows([image()], [row, pseudo(annotation_id=9)], CATEGORIES, LabelConfig(**config))
    return labels.images[0].objects[0]


@pytest.mark.parametrize(
    ("decision", "role"),
    [
        pytest.param("keep", "mask", id="kept"),
        pytest.param("box_only", "box", id="box only"),
        pytest.param("review", "mask", id="to be reviewed"),
        pytest.param("ignore", "ignored", id="ignored"),
    ],
)
def test_decisions_say_what_an_object_trains(decision, role):
    assert only(pseudo(decision=decision)).role == role


def test_a_crowd_is_ignored_whatever_its_decision_and_keeps_its_region():
    one = only(pseudo(iscrowd=True, decision="keep"))
    assert (one.role, one.mask) == ("ignored", square(1, 1))


def test_the_weight_is_the_calibrated_score_where_there_is_one():
    assert only(pseudo()).weight == pytest.approx(0.4)
    assert only(pseudo(calibrated_iou=0.75)).weight == pytest.approx(0.75)
    assert only(pseudo(), mask_weight="none").weight == 1.0


def test_a_mask_below_the_threshold_trains_its_box_alone():
    assert only(pseudo(), mask_threshold=0.41).role == "box"
    assert only(pseudo(), mask_threshold=0.4).role == "mask"


def test_masks_to_be_reviewed_train_their_box_alone_where_asked_for():
    assert only(pseudo(decision="review"), review_masks=False).role == "box"
    assert only(pseudo(), review_masks=False).role == "mask"


def boxes_and_masks(masks: int, boxes: int):
    decisions = ["keep"] * masks + ["box_only"] * boxes
    rows = [pseudo(annotation_id=i, decision=decision) for i, decision in enumerate(decisions)]
    return labels_from_rows([image()], rows, CATEGORIES, LabelConfig())


def test_training_on_almost_no_mask_is_refused_unless_asked_for():
    check_masks(boxes_and_masks(2, 18), LabelConfig())
    with pytest.raises(InputError, match="only 1 of 20 objects have a mask"):
        check_masks(boxes_and_masks(1, 19), LabelConfig())
    check_masks(boxes_and_masks(1, 19), LabelConfig(least_mask_share=0))
    check_masks(boxes_and_masks(0, 5), LabelConfig())


def test_labels_say_what_is_learned():
    assert str(boxes_and_masks(3, 1)) == "1 images, 3 masks of weight 0.40 on average, 1 boxes alone"


def test_the_given_box_is_learned_and_not_the_extent_of_the_mask():
    assert only(pseudo()).box_xyxy == (1, 1, 5, 5)


def test_boxes_as_masks_fill_every_pixel_that_the_box_touches():
    assert rle.area(only(pseudo(source_bbox_xywh=[1.0, 1.0, 3.5, 2.0]), given_masks=False).mask) == 4 * 2


def test_classes_are_places_in_the_order_of_their_ids():
    labels = labels_from_rows([image()], [pseudo()], CATEGORIES, LabelConfig())
    assert [row["id"] for row in labels.categories] == [3, 7]
    assert labels.images[0].objects[0].label == 1


def test_rejected_images_and_annotations_are_not_trained_on():
    manifest = [image(), image("b", status="rejected"), image("a", annotation_id=4, status="rejected")]
    labels = labels_from_rows(manifest, [pseudo(), pseudo(status="rejected")], CATEGORIES, LabelConfig())
    assert labels.counts() == {"images": 1, "mask": 1, "box": 0, "ignored": 0}


def test_an_image_without_objects_is_background_to_learn_from():
    labels = labels_from_rows([image(), image("b")], [pseudo()], CATEGORIES, LabelConfig())
    assert [len(one.objects) for one in labels.images] == [1, 0]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        pytest.param(pseudo(category_id=99), "category 99", id="unknown category"),
        pytest.param(pseudo(segmentation={"size": [9, 9], "counts": "a"}), "annotation 1", id="mask of another size"),
        pytest.param(pseudo(score=1.5), "not in", id="score above one"),
    ],
)
def test_damaged_labels_are_refused_by_name(row, message):
    with pytest.raises(InputError, match=message):
        labels_from_rows([image()], [row], CATEGORIES, LabelConfig())


def test_labels_with_nothing_to_learn_are_refused():
    with pytest.raises(InputError, match="no object to learn from"):
        labels_from_rows([image()], [pseudo(decision="ignore")], CATEGORIES, LabelConfig())


def test_a_coco_file_gives_scores_from_rows_or_attributes(tmp_path):
    rows = [
        {"id": 1, "image_id": 5, "category_id": 7, "bbox": [1, 1, 3, 3], "segmentation": square(1, 1), "score": 0.3},
        {"id": 2, "image_id": 5, "category_id": 3, "bbox": [5, 1, 3, 3], "segmentation": square(5, 1)},
    ]
    rows[1]["attributes"] = {"score": 0.6, "calibrated_iou": 0.5, "decision": "keep"}
    rows.append({"id": 3, "image_id": 5, "category_id": 3, "bbox": [5, 4, 3, 3]})
    content = {"images": [{"id": 5, "file_name": "a.png", "width": 10, "height": 8}], "annotations": rows}
    path = tmp_path / "labels.json"
    path.write_text(json.dumps(content | {"categories": CATEGORIES}))
    objects = labels_from_coco(path, LabelConfig()).images[0].objects
    assert [one.role for one in objects] == ["mask", "mask", "box"]
    assert [one.weight for one in objects] == pytest.approx([0.3, 0.5, 1.0])


def test_a_sample_paints_ignored_boxes_and_crowd_regions():
    rows = [
        pseudo(),
        pseudo(annotation_id=2, decision="ignore", source_bbox_xywh=[6, 0, 2, 2]),
        pseudo(annotation_id=3, iscrowd=True, segmentation=square(0, 5), source_bbox_xywh=[0, 5, 9, 3]),
    ]
    labels = labels_from_rows([image()], rows, CATEGORIES, LabelConfig())
    sample = make_sample(labels.images[0], np.zeros((*SIZE, 3), dtype=np.uint8))
    assert len(sample.boxes) == 1
    assert int(sample.ignored.sum()) == 2 * 2 + 3 * 3
    assert bool(sample.ignored[:2, 6:8].all())


def test_a_picture_of_another_size_than_its_labels_is_refused():
    labels = labels_from_rows([image()], [pseudo()], CATEGORIES, LabelConfig())
    with pytest.raises(InputError, match=r"a\.png"):
        make_sample(labels.images[0], np.zeros((10, 8, 3), dtype=np.uint8))
