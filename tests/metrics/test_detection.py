"""Own detections taken apart: by hand, over two images, with classes that are right and wrong."""

from typing import Any

import pytest

from pseudolabel.metrics.coco_ap import mask_ap
from pseudolabel.metrics.detection import class_right, detection_figures
from pseudolabel.metrics.objects import Prediction, TrueObject, read_predictions, read_truth

from .content import annotation, coco


def read(truth: list[dict[str, Any]], found: list[dict[str, Any]]) -> tuple[list[TrueObject], list[Prediction]]:
    content = coco(truth)
    true = read_truth(content)
    return list(true.objects), read_predictions({**content, "annotations": found}, true, where="found")


TRUTH = [annotation(1, (0, 0, 20, 20)), annotation(2, (50, 50, 20, 20), category_id=5)]


def test_a_wrong_class_costs_ap_and_nothing_whatever_the_class() -> None:
    found = [annotation(1, (0, 0, 20, 20), score=0.9), annotation(2, (50, 50, 20, 20), score=0.8)]  # both called 1
    rows = read(TRUTH, found)
    assert mask_ap(*rows).ap == pytest.approx(0.5)
    figures = detection_figures(*rows)
    assert figures == {
        "ap_any_class": pytest.approx(1.0),
        "box_ap": pytest.approx(0.5),
        "box_ap_any_class": pytest.approx(1.0),
        "class_right": 0.5,
    }


def test_boxes_are_measured_by_the_box_that_a_mask_came_from() -> None:
    half = annotation(1, (0, 0, 10, 20), score=0.9, attributes={"source_bbox": "0,0,20,20"})
    rows = read(TRUTH[:1], [half])
    figures = detection_figures(*rows)
    assert figures["box_ap_any_class"] == pytest.approx(1.0)
    assert figures["ap_any_class"] == pytest.approx(0.1)  # an IoU of one half reaches one of ten thresholds


def test_of_an_object_the_best_scored_finder_tells_the_class_and_one_that_nobody_finds_does_not_count() -> None:
    found = [
        annotation(1, (0, 0, 20, 20), score=0.3),
        annotation(2, (0, 0, 20, 19), score=0.6, category_id=5),  # wrong, and surer
        annotation(3, (51, 50, 20, 20), score=0.1, category_id=5),
        annotation(4, (50, 50, 20, 20), score=0.9, image_id=2),  # elsewhere
    ]
    assert class_right(*read(TRUTH, found)) == 0.5
    assert class_right(*read(TRUTH, found[3:])) is None
    assert class_right(*read(TRUTH, [])) is None


def test_masks_beyond_the_limit_count_for_nothing() -> None:
    truth = [annotation(n, (10 * n, 0, 8, 8)) for n in range(5)]
    rows = read(truth, [{**row, "score": 0.5} for row in truth])
    assert mask_ap(*rows, detections=5).ap == pytest.approx(1.0)
    assert mask_ap(*rows, detections=2).ap50 == pytest.approx(41 / 101)  # recalls 0, 0.01 ... 0.40
    assert detection_figures(*rows, detections=2)["box_ap"] == pytest.approx(41 / 101)
    many = [annotation(n, (n % 100, n // 100, 1, 1)) for n in range(207)]
    crowded = read(many, [{**row, "score": 0.5} for row in many])
    assert mask_ap(*crowded).ap == pytest.approx(49 / 101)  # of 207 objects, 100 are 0.483
    assert mask_ap(*crowded, detections=300).ap == pytest.approx(1.0)
