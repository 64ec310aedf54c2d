"""Calibration figures: closed forms, laws, and a set of known coverage."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from pseudolabel.metrics.calibration import (
    bootstrap_interval,
    expected_calibration_error,
    oracle_risk_coverage_area,
    reliability_bins,
    risk_coverage_area,
    spearman,
)

PAIRS = st.lists(st.tuples(st.sampled_from([0.1, 0.3, 0.35, 0.8]), st.floats(0, 1)), min_size=1, max_size=40)


def columns(pairs: list[tuple[float, float]]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([pair[0] for pair in pairs]), np.array([pair[1] for pair in pairs])


def test_a_score_that_is_the_iou_has_no_error_and_one_off_by_a_tenth_has_a_tenth() -> None:
    ious = np.linspace(0.1, 0.8, 100)
    assert expected_calibration_error(ious, ious) == pytest.approx(0.0, abs=1e-12)
    assert expected_calibration_error(ious + 0.1, ious) == pytest.approx(0.1)


def test_errors_of_both_signs_cancel_within_a_bin_but_not_between_bins() -> None:
    scores, ious = np.array([0.2, 0.2, 0.8, 0.8]), np.array([0.1, 0.3, 0.5, 0.5])
    assert expected_calibration_error(scores, ious, bins=2) == pytest.approx((0 + 0.3) / 2)


def test_bins_have_equal_mass_and_rising_scores() -> None:
    random = np.random.default_rng(0)
    scores = random.random(103)
    parts = reliability_bins(scores, scores**2, bins=10)
    assert {part.count for part in parts} == {10, 11}
    assert sum(part.count for part in parts) == 103
    assert all(first.high <= second.low for first, second in pairwise(parts))
    assert sum(part.mean_iou * part.count for part in parts) / 103 == pytest.approx((scores**2).mean())


def test_fewer_masks_than_bins_give_one_bin_each() -> None:
    assert [part.count for part in reliability_bins(np.array([0.5, 0.1]), np.array([1.0, 0.0]))] == [1, 1]


def test_area_of_three_masks_by_hand() -> None:
    scores, ious = np.array([0.9, 0.5, 0.1]), np.array([0.8, 0.2, 0.5])
    assert risk_coverage_area(scores, ious) == pytest.approx((0.2 + (0.2 + 0.8) / 2 + (0.2 + 0.8 + 0.5) / 3) / 3)
    assert oracle_risk_coverage_area(ious) == pytest.approx((0.2 + (0.2 + 0.5) / 2 + 1.5 / 3) / 3)


def test_a_constant_score_has_the_mean_risk() -> None:
    ious = np.array([0.9, 0.1, 0.4])
    assert risk_coverage_area(np.full(3, 0.7), ious) == pytest.approx(1 - ious.mean())


@given(PAIRS, st.randoms(use_true_random=False))
def test_no_figure_depends_on_the_order_of_the_rows(pairs: list[tuple[float, float]], random: object) -> None:
    shuffled = list(pairs)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    first, second = columns(pairs), columns(shuffled)
    assert expected_calibration_error(*first) == pytest.approx(expected_calibration_error(*second), abs=1e-12)
    assert risk_coverage_area(*first) == pytest.approx(risk_coverage_area(*second), abs=1e-12)


@given(PAIRS)
def test_no_score_does_better_than_the_oracle(pairs: list[tuple[float, float]]) -> None:
    scores, ious = columns(pairs)
    assert oracle_risk_coverage_area(ious) <= risk_coverage_area(scores, ious) + 1e-12


def test_spearman_is_scipys_and_none_for_a_constant() -> None:
    random = np.random.default_rng(1)
    scores = random.random(50).round(1)
    ious = scores + random.normal(0, 0.3, 50)
    expected = stats.pearsonr(stats.rankdata(scores), stats.rankdata(ious)).statistic
    assert spearman(scores, ious) == pytest.approx(expected)
    assert spearman(np.ones(5), random.random(5)) is None


def test_interval_covers_the_mean_of_independent_images_as_often_as_it_says() -> None:
    covered = 0
    for trial in range(100):
        values = np.random.default_rng(trial).normal(0, 1, 60)
        low, high = bootstrap_interval(lambda rows: float(values[rows].mean()), np.arange(60), repeats=200)  # noqa: B023
        covered += low <= 0 <= high
    assert 86 <= covered <= 100  # 95 expected, five standard deviations of a binomial are eleven


def test_interval_is_wider_where_masks_of_an_image_go_together() -> None:
    values = np.repeat(np.random.default_rng(0).normal(0, 1, 20), 30)

    def width(images: np.ndarray) -> float:
        low, high = bootstrap_interval(lambda rows: float(values[rows].mean()), images, repeats=200)
        return high - low

    assert width(np.repeat(np.arange(20), 30)) > 3 * width(np.arange(600))


def test_interval_is_the_same_twice() -> None:
    values = np.random.default_rng(0).random(30)
    calls = [bootstrap_interval(lambda rows: float(values[rows].mean()), np.arange(30) // 3) for _ in range(2)]
    assert calls[0] == calls[1]


def test_lists_of_different_length_nan_and_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="one length"):
        risk_coverage_area(np.zeros(2), np.zeros(3))
    with pytest.raises(ValueError, match="finite"):
        expected_calibration_error(np.array([np.nan]), np.zeros(1))
    for figure in (risk_coverage_area, expected_calibration_error):
        with pytest.raises(ValueError, match="no masks"):
            figure(np.zeros(0), np.zeros(0))
