"""Calibration: what it learns it says again, on images that it has not seen, and after a trip through its file."""

import json
from typing import Any

import numpy as np
import pytest

from pseudolabel.errors import InputError
from pseudolabel.fusion.calibration import fit_calibration, held_out_scores, image_folds, threshold_for
from pseudolabel.fusion.score_model import ScoreModel, default_score_model, load_score_model
from pseudolabel.metrics.calibration import expected_calibration_error, spearman

Row = dict[str, Any]


def row(image: int, score: float, **changes: Any) -> Row:
    """A row whose evidence alone varies, and with it what the shipped score makes of it."""
    evidence = {
        "consensus": 0.9,
        "prompted": 1,
        "contrast": score,
        "edges": score,
        "covered": 0.0,
        "fill": 0.7,
        "solidity": 0.9,
    }
    return {"image_key": f"{image:04d}.png", "evidence": evidence} | changes


def audited(seed: int, images: int, *, power: float = 2.0) -> tuple[list[Row], np.ndarray]:
    """Masks whose IoU is a power of what the shipped score promises, give or take."""
    random = np.random.default_rng(seed)
    rows = [row(i // 4, float(value)) for i, value in enumerate(random.uniform(0, 1, images * 4))]
    promised = np.array(default_score_model().expected_iou(rows))
    return rows, np.clip(promised**power + random.normal(0, 0.08, len(rows)), 0, 1)


def test_a_score_that_promises_too_much_becomes_right_on_unseen_images() -> None:
    rows, ious = audited(0, 40)
    unseen, truth = audited(1, 100)
    before, after = (
        np.array(model.expected_iou(unseen)) for model in (default_score_model(), fit_calibration(rows, ious))
    )
    assert expected_calibration_error(before, truth) > 0.12
    assert expected_calibration_error(after, truth) < 0.05
    ranked = spearman(after, truth)
    assert ranked is not None
    assert ranked > 0.9


def test_a_small_audit_of_noise_moves_the_score_hardly_and_leaves_the_ranking() -> None:
    """Forty masks whose IoU has nothing to do with their rows, at the level that the score expects."""
    rows, _ = audited(0, 10)
    level = float(np.mean(default_score_model().expected_iou(rows)))
    noise = np.clip(np.random.default_rng(5).normal(level, 0.15, len(rows)), 0, 1)
    unseen, truth = audited(1, 100, power=1.0)
    before, after = (
        np.array(model.expected_iou(unseen)) for model in (default_score_model(), fit_calibration(rows, noise))
    )
    ranked = spearman(before, truth), spearman(after, truth)
    assert all(ranked)
    assert (ranked[1] or 0.0) > (ranked[0] or 1.0) - 0.03


def test_masks_as_good_as_expected_leave_the_score_as_it_is() -> None:
    rows, _ = audited(0, 40)
    exactly = np.array(default_score_model().expected_iou(rows))
    learned = fit_calibration(rows, exactly)
    np.testing.assert_allclose(learned.expected_iou(rows), exactly, atol=1e-6)


def test_order_is_kept_where_it_is_asked_for_and_level_and_spread_are_learned() -> None:
    """Doubtful masks alone, whose order among themselves is the wrong way round, below what the score promises."""
    rows, _ = audited(0, 40)
    promised = np.array(default_score_model().expected_iou(rows))
    unseen, truth = audited(1, 100)
    before = np.array(default_score_model().expected_iou(unseen))
    free, kept = (
        np.array(fit_calibration(rows, 0.5 - 0.4 * promised, keep_order=keep).expected_iou(unseen))
        for keep in (False, True)
    )
    assert (spearman(free, before) or 1.0) < 0
    assert spearman(kept, before) == pytest.approx(1.0)
    rows, ious = audited(0, 40)
    learned = np.array(fit_calibration(rows, ious, keep_order=True).expected_iou(unseen))
    assert spearman(learned, before) == pytest.approx(1.0)
    assert expected_calibration_error(before, truth) > 0.12
    assert expected_calibration_error(learned, truth) < 0.06


def test_a_saved_calibration_says_the_same(tmp_path) -> None:  # type: ignore[no-untyped-def]
    learned = fit_calibration(*audited(0, 30), provenance={"from": "here"})
    path = tmp_path / "calibration.json"
    path.write_text(learned.to_json())
    loaded = load_score_model(path)
    asked = [row(0, 0.2), row(0, 0.8, agreement=0.7)]
    assert loaded.expected_iou(asked) == learned.expected_iou(asked)
    assert loaded.digest == learned.digest
    assert loaded.provenance["from"] == "here"


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"chances": {}, "version": 0}', "null"])
def test_a_file_that_is_no_calibration_is_an_input_error(text: str) -> None:
    with pytest.raises(InputError, match="pseudolabel calibrate"):
        ScoreModel.from_json(text, where="x.json")


@pytest.mark.parametrize(
    "damage",
    [{"weights": [float("nan")] * 8}, {"weights": [1.0]}, {"scale": [0.0] * 8}, {"version": 2}, {"mean": ["a"] * 8}],
)
def test_a_calibration_with_bad_numbers_is_an_input_error(damage: dict[str, Any]) -> None:
    text = json.dumps(json.loads(default_score_model().to_json()) | damage)
    with pytest.raises(InputError, match="pseudolabel calibrate"):
        ScoreModel.from_json(text, where="x.json")


def test_too_small_an_audit_is_refused() -> None:
    rows, ious = audited(0, 5)
    with pytest.raises(InputError, match="at least 30 objects"):
        fit_calibration(rows, ious)
    one_image = [row(0, 0.5) for _ in range(40)]
    with pytest.raises(InputError, match="5 images"):
        fit_calibration(one_image, np.full(40, 0.5))


def test_the_smallest_audit_that_is_taken_is_measured_on_images_not_learned_from() -> None:
    """30 objects in 5 images: without a fold they are fewer, which is no reason to refuse them."""
    rows, ious = audited(0, 8)
    rows = [one | {"image_key": f"{place % 5}.png"} for place, one in enumerate(rows[:30])]
    held_out = held_out_scores(rows, ious[:30])
    assert held_out.shape == (30,)
    assert ((held_out > 0) & (held_out < 1)).all()
    with pytest.raises(InputError, match="29 objects in 5 images"):
        held_out_scores(rows[:29], ious[:29])


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
