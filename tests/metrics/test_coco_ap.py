"""Mask AP: closed forms, and the same figures as pycocotools on random sets."""

import io
from contextlib import redirect_stdout
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from pseudolabel.metrics.coco_ap import MaskAp, mask_ap
from pseudolabel.metrics.objects import read_predictions, read_truth

from .content import annotation, coco


def measured(truth: dict[str, Any], found: list[dict[str, Any]]) -> MaskAp:
    true = read_truth(truth)
    return mask_ap(true.objects, read_predictions({**truth, "annotations": found}, true, where="found"))


def test_perfect_masks_have_an_ap_of_one_and_no_masks_of_zero() -> None:
    truth = coco([annotation(1, (0, 0, 20, 20)), annotation(2, (30, 30, 60, 60), category_id=5)])
    perfect = measured(truth, [{**row, "score": 0.3} for row in truth["annotations"]])
    assert (perfect.ap, perfect.ap50, perfect.ap75, perfect.ap_small, perfect.ap_medium) == (1, 1, 1, 1, 1)
    assert perfect.per_class == {1: 1.0, 5: 1.0}
    nothing = measured(truth, [])
    assert (nothing.ap, nothing.ap50, nothing.per_class) == (0.0, 0.0, {1: 0.0, 5: 0.0})


def test_a_mask_of_iou_0_8_counts_at_seven_of_ten_thresholds() -> None:
    truth = coco([annotation(1, (0, 0, 10, 10))])
    ap = measured(truth, [annotation(1, (0, 0, 10, 8), score=1.0)])
    assert ap.ap == pytest.approx(0.7)  # 0.50, 0.55, ... 0.80
    assert (ap.ap50, ap.ap75) == (1.0, 1.0)


def test_what_has_no_true_object_is_none() -> None:
    empty = measured(coco([]), [annotation(1, (0, 0, 10, 10), score=1.0)])
    assert (empty.ap, empty.per_class) == (None, {})
    small = measured(coco([annotation(1, (0, 0, 10, 10))]), [])
    assert (small.ap_small, small.ap_medium, small.ap_large) == (0.0, None, None)


def test_a_wrong_mask_within_a_crowd_costs_nothing() -> None:
    crowd = annotation(9, (50, 0, 60, 90), iscrowd=1)
    truth = coco([annotation(1, (0, 0, 10, 10)), crowd])
    found = [annotation(1, (0, 0, 10, 10), score=0.5), annotation(2, (60, 10, 10, 10), score=0.9)]
    assert measured(truth, found).ap == 1.0
    assert measured(coco([annotation(1, (0, 0, 10, 10))]), found).ap == pytest.approx(0.5)


def test_an_annotation_of_id_zero_is_found_like_any_other() -> None:
    truth = coco([annotation(0, (0, 0, 10, 10))])
    assert measured(truth, [annotation(0, (0, 0, 10, 10), score=0.5)]).ap == 1.0


def test_nothing_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    truth = coco([annotation(1, (0, 0, 10, 10))])
    measured(truth, [annotation(1, (0, 0, 10, 10), score=0.5)])
    assert capsys.readouterr() == ("", "")


def random_set(seed: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    random = np.random.default_rng(seed)
    truth, found = [], []
    for key in range(1, 60):
        x, y, width, height = (int(v) for v in random.integers(1, 50, 4))
        more = {"image_id": int(random.integers(1, 5)), "category_id": int(random.choice([1, 5]))}
        truth.append(annotation(key, (x, y, width, height), iscrowd=int(random.random() < 0.1), **more))
        moved = (x + int(random.integers(0, 4)), y, width, max(1, height - int(random.integers(0, 5))))
        if random.random() < 0.8:
            found.append(annotation(key, moved, score=round(float(random.random()), 3), **more))
    return coco(truth, images=4), found


@pytest.mark.parametrize("seed", range(3), ids=str)
def test_figures_are_those_of_pycocotools(seed: int) -> None:
    truth, found = random_set(seed)
    ours = measured(truth, found)
    with redirect_stdout(io.StringIO()):
        reference = COCO()
        reference.dataset = truth
        reference.createIndex()
        keys = ("image_id", "category_id", "segmentation", "score")
        results = reference.loadRes([{key: row[key] for key in keys} for row in found])
        evaluation = COCOeval(reference, results, "segm")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    theirs = [None if value < 0 else value for value in evaluation.stats[:6]]
    own = [ours.ap, ours.ap50, ours.ap75, ours.ap_small, ours.ap_medium, ours.ap_large]
    assert own == pytest.approx(theirs, abs=1e-12)
