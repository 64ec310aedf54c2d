"""Calibration: what it learns it says again, on images that it has not seen, and after a trip through its file."""

from typing import Any

import numpy as np
import pytest

from pseudolabel.errors import InputError
from pseudolabel.fusion.calibration import Calibration, fit_calibration, image_folds, load_calibration, threshold_for
from pseudolabel.fusion.features import feature_matrix, tightness
from pseudolabel.metrics.calibration import expected_calibration_error, spearman

Row = dict[str, Any]


def row(image: int, score: float, **changes: Any) -> Row:
    return {
        "image_key": f"{image:04d}.png", "category_id": 1, "score": score, "box_quality": score, "pixel_quality": score,
        "expected_iou": score,
        "agreement": None, "sources": ["teacher"], "candidates_used": 1, "area": 500, "decision": "keep",
        "bbox_xywh": [0.0, 0.0, 30.0, 30.0], "source_bbox_xywh": [0.0, 0.0, 30.0, 30.0],
    } | changes  # fmt: skip


def overconfident(seed: int, images: int) -> tuple[list[Row], np.ndarray]:
    """Scores that promise much more than the masks keep: the IoU is the score's square, give or take."""
    random = np.random.default_rng(seed)
    scores = random.uniform(0.3, 1.0, images * 4)
    rows = [row(i // 4, float(score)) for i, score in enumerate(scores)]
    return rows, np.clip(scores**2 + random.normal(0, 0.08, len(scores)), 0, 1)


def test_overconfident_scores_become_right_on_unseen_images() -> None:
    rows, ious = overconfident(0, 100)
    unseen, truth = overconfident(1, 100)
    before = np.array([one["score"] for one in unseen])
    after = np.array(fit_calibration(rows, ious, bootstraps=5).expected_iou(unseen))
    assert expected_calibration_error(before, truth) > 0.15
    assert expected_calibration_error(after, truth) < 0.05
    ranked = spearman(after, truth)
    assert ranked is not None
    assert ranked > 0.9


def test_expected_iou_rises_with_the_score() -> None:
    rows, ious = overconfident(0, 60)
    learned = fit_calibration(rows, ious, bootstraps=5)
    values = learned.expected_iou([row(0, score) for score in np.linspace(0, 1, 50)])
    assert values == sorted(values)
    assert 0 <= values[0] < values[-1] <= 1


def test_interval_holds_the_expected_value_and_narrows_with_more_images() -> None:
    few, many = (fit_calibration(*overconfident(0, images)) for images in (15, 300))
    asked = [row(0, score) for score in (0.5, 0.7, 0.9)]
    for one in (few, many):
        for value, (low, high) in zip(one.expected_iou(asked), one.interval(asked), strict=True):
            assert low <= value <= high
    widths = [np.mean([high - low for low, high in one.interval(asked)]) for one in (few, many)]
    assert widths[1] < widths[0]


def test_a_saved_calibration_says_the_same(tmp_path) -> None:  # type: ignore[no-untyped-def]
    learned = fit_calibration(*overconfident(0, 30), provenance={"from": "here"}, bootstraps=5)
    path = tmp_path / "calibration.json"
    path.write_text(learned.to_json())
    loaded = load_calibration(path)
    asked = [row(0, 0.2), row(0, 0.8, category_id=77)]
    assert loaded.expected_iou(asked) == learned.expected_iou(asked)
    assert loaded.digest == learned.digest
    assert loaded.provenance == {"from": "here"}


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"class_counts": {}, "version": 0}', "null"])
def test_a_file_that_is_no_calibration_is_an_input_error(text: str) -> None:
    with pytest.raises(InputError, match="pseudolabel calibrate"):
        Calibration.from_json(text, where="x.json")


def test_too_small_an_audit_is_refused() -> None:
    rows, ious = overconfident(0, 5)
    with pytest.raises(InputError, match="at least 30 objects"):
        fit_calibration(rows, ious)
    one_image = [row(0, 0.5) for _ in range(40)]
    with pytest.raises(InputError, match="5 images"):
        fit_calibration(one_image, np.full(40, 0.5))


def test_objects_of_an_image_are_in_one_fold() -> None:
    fold = image_folds(["b", "a", "b", "c", "a"])
    assert fold.tolist() == [1, 0, 1, 2, 0]


def test_threshold_is_the_lowest_score_that_keeps_the_precision() -> None:
    scores, ious = np.array([0.9, 0.8, 0.7, 0.6, 0.5]), np.array([0.8, 0.9, 0.2, 0.8, 0.1])
    found = threshold_for(scores, ious, target_precision=0.75, at_iou=0.75)
    assert found is not None
    assert (found.calibrated_iou, found.precision, found.kept, found.of) == (0.6, 0.75, 4, 5)


def test_threshold_takes_all_masks_of_a_score_or_none() -> None:
    scores, ious = np.array([0.9, 0.9, 0.5]), np.array([0.8, 0.1, 0.9])
    assert threshold_for(scores, ious, target_precision=1.0, at_iou=0.75) is None


def test_tightness_is_the_iou_of_extent_and_box() -> None:
    assert tightness(row(0, 0.5, bbox_xywh=[0.0, 0.0, 15.0, 30.0])) == pytest.approx(0.5)


def test_features_are_finite_for_a_row_without_candidates() -> None:
    bare = row(0, 0.0, box_quality=None, sources=None, candidates_used=None, source_bbox_xywh=[0.0, 0.0, 0.1, 0.0])
    assert np.isfinite(feature_matrix([bare], {})).all()
