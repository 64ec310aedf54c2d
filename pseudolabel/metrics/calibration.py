"""How much a score says about the mask that it belongs to.

Scores often tie (every mask of one source may have the same). Members of a tie count with their mean outcome, so that
no figure depends on the order of the rows.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64
from scipy import stats

Values = Float64[np.ndarray, " n"]


@dataclass(frozen=True, slots=True)
class ReliabilityBin:
    """Masks of about equal score: what the score promised and what the masks were."""

    low: float
    high: float
    mean_score: float
    mean_iou: float
    count: int


def reliability_bins(scores: Values, ious: Values, *, bins: int = 15) -> list[ReliabilityBin]:
    """The masks in order of their score, cut into bins of equal count (to within one).

    Raises:
        ValueError: the two have different lengths, or a value is not finite.
    """
    _check(scores, ious)
    order = np.argsort(scores, kind="stable")
    ranked, outcomes = scores[order], _tie_means(scores, ious)[order]
    return [
        ReliabilityBin(
            float(ranked[part[0]]),
            float(ranked[part[-1]]),
            float(ranked[part].mean()),
            float(outcomes[part].mean()),
            len(part),
        )
        for part in np.array_split(np.arange(len(ranked)), bins)
        if len(part)
    ]


def expected_calibration_error(scores: Values, ious: Values, *, bins: int = 15) -> float:
    """Mean over the masks of |score - IoU|, both averaged within bins of equal mass; 0 for a score that is right.

    Source: Naeini et al., 2015, with the bins of equal mass of Nixon et al., 2019 (arXiv 1904.01685).

    Raises:
        ValueError: as `reliability_bins`; there is no mask.
    """
    if not len(scores):
        raise ValueError("no masks to measure")
    parts = reliability_bins(scores, ious, bins=bins)
    return float(sum(part.count * abs(part.mean_score - part.mean_iou) for part in parts) / len(scores))


def spearman(scores: Values, ious: Values) -> float | None:
    """Rank correlation of score and IoU, ties by their mean rank; None where one of them is constant."""
    _check(scores, ious)
    if len(scores) < 2 or np.ptp(scores) == 0 or np.ptp(ious) == 0:
        return None
    return float(stats.spearmanr(scores, ious).statistic)


def risk_coverage_area(scores: Values, ious: Values) -> float:
    """Mean risk (1 - IoU) of the k best-scored masks, averaged over k = 1 ... n: what is lost by trusting the score.

    Source: Geifman et al., 2019 (arXiv 1805.08206), the area under the risk-coverage curve.

    Raises:
        ValueError: as `expected_calibration_error`.
    """
    _check(scores, ious)
    if not len(scores):
        raise ValueError("no masks to measure")
    risks = 1 - _tie_means(scores, ious)[np.argsort(-scores, kind="stable")]
    return float((np.cumsum(risks) / np.arange(1, len(risks) + 1)).mean())


def oracle_risk_coverage_area(ious: Values) -> float:
    """The smallest area that any score could reach: that of the IoU itself."""
    return risk_coverage_area(ious, ious)


def bootstrap_interval(
    statistic: Callable[[Int64[np.ndarray, " m"]], float],
    image_ids: Int64[np.ndarray, " n"],
    *,
    repeats: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile interval of a statistic under resampling of whole images, because masks of one image go together.

    Args:
        statistic: from row numbers, of which some occur repeatedly, to a value.
        image_ids: the image of every row.

    Raises:
        ValueError: there is no row.
    """
    if not len(image_ids):
        raise ValueError("no rows to resample")
    order = np.argsort(image_ids, kind="stable")
    rows = np.split(order, np.flatnonzero(np.diff(image_ids[order])) + 1)
    random = np.random.default_rng(seed)
    draws = (random.integers(len(rows), size=len(rows)) for _ in range(repeats))
    values = [statistic(np.concatenate([rows[place] for place in draw])) for draw in draws]
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _tie_means(scores: Values, outcomes: Values) -> Values:
    """Every row's outcome replaced by the mean over the rows of equal score."""
    _, group, counts = np.unique(scores, return_inverse=True, return_counts=True)
    means: Values = (np.bincount(group, weights=outcomes) / counts)[group] if len(scores) else outcomes
    return means


def _check(scores: Values, ious: Values) -> None:
    if scores.shape != ious.shape or scores.ndim != 1:
        raise ValueError(f"expected two lists of one length, got shapes {scores.shape} and {ious.shape}")
    if not (np.isfinite(scores).all() and np.isfinite(ious).all()):
        raise ValueError("scores and IoUs must be finite")
