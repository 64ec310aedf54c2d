"""How far two samples of scores are apart."""

import numpy as np
from jaxtyping import Float64


def population_stability(
    before: Float64[np.ndarray, " n"], after: Float64[np.ndarray, " m"], *, bins: int = 10
) -> float:
    """The population stability index: sum of (q - p) ln(q / p) over bins that hold equal shares of `before`.

    0 for equal samples; below 0.1 is read as no shift, above 0.25 as a large one. Half an item is added to every bin,
    so that an empty one is finite.

    Source: Siddiqi, Credit Risk Scorecards, 2006.

    Raises:
        ValueError: one of them is empty.
    """
    if not (len(before) and len(after)):
        raise ValueError("two samples of at least one score each are needed")
    edges = np.unique(np.quantile(before, np.linspace(0, 1, bins + 1)[1:-1]))
    first, second = (
        _shares(np.searchsorted(edges, values, side="right"), len(edges) + 1) for values in (before, after)
    )
    return float(((second - first) * np.log(second / first)).sum())


def ks_distance(before: Float64[np.ndarray, " n"], after: Float64[np.ndarray, " m"]) -> float:
    """The largest distance between the two distribution functions (Kolmogorov-Smirnov), in [0, 1].

    Raises:
        ValueError: one of them is empty.
    """
    if not (len(before) and len(after)):
        raise ValueError("two samples of at least one score each are needed")
    places = np.concatenate([before, after])
    first, second = (np.searchsorted(np.sort(one), places, side="right") / len(one) for one in (before, after))
    return float(np.abs(first - second).max())


def _shares(places: np.ndarray, bins: int) -> Float64[np.ndarray, " bins"]:
    counts = np.bincount(places, minlength=bins) + 0.5
    return np.asarray(counts / counts.sum(), dtype=np.float64)
