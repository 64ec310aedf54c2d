"""Which cells of a box belong to its object: class evidence, the box's shape, colours and smoothness in one posterior.

The model is a binary random field on the cells of a window around the box, solved by mean field (Kraehenbuehl and
Koltun, arXiv 1210.5644, for the method; neighbours here are eight near and eight far ones, not all). The log-odds of a
cell is the sum of

* its prior: class evidence, an ellipse in the box, what rival boxes claim (`pseudolabel.segmenters.candidates`);
* colour: the log ratio of foreground to background mass among the cells of its colour cluster, learned from the
  posterior itself in turns (Rother et al., GrabCut, 2004, with clusters for Gaussians);
* its neighbours' votes, weighted by likeness of colour;
* tightness: a row or column of the box without foreground is pulled until its best cell would stand at even odds, for
  an object touches every row and column of its tight box where it is connected (Lempitsky et al., ICCV 2009).

The weights were set on photographs of COCO (docs/results.md has the figures); nothing here reads a true mask.
"""

from dataclasses import dataclass

import numba
import numpy as np
from jaxtyping import Bool, Float32, Float64, Int32, Int64

_OFFSETS = np.array([(0, 1), (1, 0), (1, 1), (1, -1), (0, 3), (3, 0), (3, 3), (3, -3)], dtype=np.int64)
_LENGTHS = np.hypot(_OFFSETS[:, 0], _OFFSETS[:, 1])
_RIM = 3  # cells, the longest step
CLUSTERS = 24  # of colours
_OUTSIDE = np.float32(-20)
Place = tuple[slice, slice]  # rows and columns of a window
_LAB_FROM_RGB = np.array(
    [[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169], [0.019334, 0.119193, 0.950227]], dtype=np.float32
)
_WHITE = np.array([0.950456, 1, 1.088754], dtype=np.float32)


@dataclass(frozen=True, slots=True)
class Refinement:
    """Weights of the random field."""

    colour: float = 0.7
    colour_limit: float = 3.0  # of a cluster's log ratio
    clusters: int = CLUSTERS
    smoothness: float = 0.45
    contrast: float = 1.0  # how many times the mean squared difference counts as an edge
    rounds: int = 4  # of learning colours
    steps: int = 4  # of mean field in each round
    pull_limit: float = 3.0  # of tightness per round, in log-odds


@dataclass(frozen=True, slots=True)
class Colours:
    """What the field knows of a window's colours, the same for every prior."""

    cluster: Int32[np.ndarray, "h w"]
    weights: Float32[np.ndarray, "8 h+6 w+6"]  # of pairs of neighbours, with a rim of zeros

    @classmethod
    def of(
        cls, lab: Float32[np.ndarray, "h w 3"], settings: Refinement, cluster: Int32[np.ndarray, "h w"] | None = None
    ) -> "Colours":
        """Clusters and neighbours' weights of CIE-Lab colours.

        Args:
            cluster: of every cell's colour, as `cluster_colours` finds it, where that is known already.
        """
        if cluster is None:
            cluster = cluster_colours(lab.reshape(-1, 3), settings.clusters).reshape(lab.shape[:2])
        return cls(cluster, np.float32(settings.smoothness) * contrast_weights(lab, settings.contrast))


def refine(
    prior_logit: Float32[np.ndarray, "h w"],
    colours: Colours,
    inside: Bool[np.ndarray, "h w"],
    unknown: Bool[np.ndarray, "h w"],
    settings: Refinement,
) -> Float32[np.ndarray, "h w"]:
    """Posterior foreground probability, 0 outside the box.

    Args:
        prior_logit: log-odds before looking at colours.
        colours: of the window, by `Colours.of`.
        inside: cells of the box; all others are background, and none of them costs anything.
        unknown: cells whose colours must not count as background (the same class outside the box).
        settings: weights.
    """
    whole = np.zeros(inside.shape, dtype=np.float32)
    if not inside.any():
        return whole
    place = _extent(inside)
    box, cluster, known = inside[place], colours.cluster[place], ~unknown[place]
    beyond = ~unknown
    beyond[place] = False
    background = np.bincount(colours.cluster[beyond], minlength=int(colours.cluster.max()) + 1)
    prior = np.where(box, prior_logit[place], _OUTSIDE)
    posterior: Float32[np.ndarray, "h w"] = np.where(box, _sigmoid(prior), 0).astype(np.float32)
    for _ in range(settings.rounds):
        colour = _colour_logit(cluster, posterior, known, background, settings.colour_limit)
        unary = np.where(box, prior + settings.colour * colour, _OUTSIDE).astype(np.float32)
        posterior, logit = mean_field(unary, colours.weights, box, posterior, settings.steps, place)
        prior = prior + _tightness_pull(logit, box, settings.pull_limit)
    whole[place] = posterior
    return whole


def _extent(cells: Bool[np.ndarray, "h w"]) -> Place:
    """Rows and columns from the first to the last cell; there is one."""
    rows, columns = np.flatnonzero(cells.any(axis=1)), np.flatnonzero(cells.any(axis=0))
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


def explained_share(cluster: Int32[np.ndarray, "h w"], posterior: Float32[np.ndarray, "h w"]) -> float:
    """Share of the doubt whether a cell is the object's that knowing its colour takes away, in [0, 1].

    The mutual information of object and colour cluster over the entropy of the object (Theil's uncertainty
    coefficient); 0 where there is no doubt.
    """
    ids = cluster.ravel()
    front = np.bincount(ids, posterior.ravel())
    cells = np.bincount(ids)
    doubt = _entropy(np.array([front.sum() / len(ids)]))[0]
    left = float((cells * _entropy(front / np.maximum(cells, 1))).sum()) / len(ids)
    return max(0.0, 1 - left / float(doubt)) if doubt > 0 else 0.0


def _entropy(share: Float64[np.ndarray, " n"]) -> Float64[np.ndarray, " n"]:
    """Of events with these probabilities, in nats."""
    inner = np.clip(share, 1e-12, 1 - 1e-12)
    entropy: Float64[np.ndarray, " n"] = -(inner * np.log(inner) + (1 - inner) * np.log1p(-inner))
    return np.where((share > 0) & (share < 1), entropy, 0.0)


def mean_field(
    unary: Float32[np.ndarray, "h w"],
    weights: Float32[np.ndarray, "8 H+6 W+6"],
    inside: Bool[np.ndarray, "h w"],
    posterior: Float32[np.ndarray, "h w"],
    steps: int,
    place: Place,
) -> tuple[Float32[np.ndarray, "h w"], Float32[np.ndarray, "h w"]]:
    """Posterior and log-odds after some steps in which every cell hears its neighbours' votes of the step before.

    Args:
        weights: of the whole window.
        place: where in the window the cells are; all others of it vote against.
    """
    vote = np.zeros(weights.shape[1:], dtype=np.float32)
    votes = vote[_RIM:-_RIM, _RIM:-_RIM]
    votes[...] = -1
    here = votes[place]
    here[...] = 2 * posterior - np.float32(1)
    logit, opinion = np.empty_like(unary), np.empty(unary.shape, dtype=np.float64)
    top, left = place[0].start, place[1].start
    for _ in range(steps):
        _hear(unary, weights, vote, logit, top, left)
        np.tanh(np.divide(logit, 2, out=opinion), out=opinion)
        _vote(opinion, inside, vote, top, left)
    return (here + np.float32(1)) / np.float32(2), logit


def rgb_to_lab(rgb: Float32[np.ndarray, "h w 3"]) -> Float32[np.ndarray, "h w 3"]:
    """CIE-Lab (D65) of sRGB values in [0, 255]."""
    value = rgb / np.float32(255)
    linear = np.where(value > 0.04045, ((value + 0.055) / 1.055) ** 2.4, value / 12.92).astype(np.float32)
    xyz = linear @ _LAB_FROM_RGB.T / _WHITE
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    lab = [116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])]
    stacked: Float32[np.ndarray, "h w 3"] = np.stack(lab, axis=-1).astype(np.float32)
    return stacked


def cluster_colours(colours: Float32[np.ndarray, "n 3"], clusters: int) -> Int32[np.ndarray, " n"]:
    """Index of the colour cluster of every cell: k-means from seeds at even ranks of lightness, so without chance."""
    seeds = _at_even_ranks(colours[:, 0], min(clusters, len(colours)))
    cluster: Int32[np.ndarray, " n"] = _k_means(np.ascontiguousarray(colours.T), colours[seeds].copy(), 6)
    return cluster


def _at_even_ranks(values: Float32[np.ndarray, " n"], count: int) -> Int64[np.ndarray, " k"]:
    """Places of the values at even ranks from least to greatest; of equal ones the earlier place ranks lower.

    Bits of a float32, read as an integer, are in the order of its size; with the place behind them no two are equal.
    """
    bits = (values + np.float32(0)).view(np.int32).astype(np.int64)
    keys = (np.where(bits < 0, -(bits & 0x7FFFFFFF), bits) << 32) | np.arange(len(values))
    ranks = np.linspace(0, len(values) - 1, count).astype(np.int64)
    places: Int64[np.ndarray, " k"] = np.partition(keys, ranks)[ranks] & 0xFFFFFFFF
    return places


def contrast_weights(lab: Float32[np.ndarray, "h w 3"], contrast: float) -> Float32[np.ndarray, "8 h+6 w+6"]:
    """Weight in [0, 1] of the pair (cell, cell + offset) for eight offsets, 0 where either lies outside.

    The cells have a rim of three around them.
    """
    differences = _differences(np.ascontiguousarray(np.moveaxis(lab, -1, 0)))
    cells = differences[:, _RIM:-_RIM, _RIM:-_RIM]
    near = [np.ascontiguousarray(cells[0, :, :-1]), np.ascontiguousarray(cells[1, :-1])]
    scale = np.mean([d.mean() if d.size else 0.0 for d in near]) + 1e-3
    closeness = np.exp(-differences / (2 * contrast * scale))
    weights: Float32[np.ndarray, "8 h+6 w+6"] = (closeness / _LENGTHS[:, None, None]).astype(np.float32)
    return weights


def _sigmoid(logit: Float32[np.ndarray, "h w"]) -> Float32[np.ndarray, "h w"]:
    probability: Float32[np.ndarray, "h w"] = 1 / (1 + np.exp(-np.clip(logit, -30, 30)))
    return probability


def _colour_logit(
    cluster: Int32[np.ndarray, "h w"],
    posterior: Float32[np.ndarray, "h w"],
    known: Bool[np.ndarray, "h w"],
    background: Int64[np.ndarray, " k"],
    limit: float,
) -> Float32[np.ndarray, "h w"]:
    """Log ratio of the likelihoods of a cell's colour, drawn towards 0 by six cells' worth of doubt per cluster.

    Args:
        known: cells whose colours may count as background.
        background: of every cluster, how many cells elsewhere do.
    """
    ids, count = cluster.ravel(), len(background)
    front = np.bincount(ids, posterior.ravel(), count)
    back = background + np.bincount(ids, np.where(known, 1 - posterior, 0).ravel(), count)
    share = front.sum() / max(front.sum() + back.sum(), 1e-6)
    share = min(max(share, 1e-3), 1 - 1e-3)
    ratio = np.log((front + 6 * share) / (back + 6 * (1 - share))) - np.log(share / (1 - share))
    logit: Float32[np.ndarray, "h w"] = np.clip(ratio, -limit, limit).astype(np.float32)[cluster]
    return logit


def _tightness_pull(
    logit: Float32[np.ndarray, "h w"], inside: Bool[np.ndarray, "h w"], limit: float
) -> Float32[np.ndarray, "h w"]:
    """What the cells of a row or column without foreground lack to even odds, at most `limit`.

    Cells outside the box decide nothing: their log-odds are so far below zero that none lacks less than the limit.
    """
    row = np.clip(-logit.max(axis=1, keepdims=True), 0, limit)
    column = np.clip(-logit.max(axis=0, keepdims=True), 0, limit)
    pull: Float32[np.ndarray, "h w"] = np.where(inside, np.maximum(row, column), 0).astype(np.float32)
    return pull


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]  # numba has no types
def _k_means(planes: np.ndarray, centres: np.ndarray, rounds: int) -> np.ndarray:  # pragma: no cover - compiled
    """Loops over cells innermost, without a branch, so that they become vector instructions."""
    count = planes.shape[1]
    labels = np.zeros(count, dtype=np.int32)
    smallest = np.empty(count, dtype=np.float32)
    for step in range(rounds):
        smallest[:] = np.inf
        for k in range(centres.shape[0]):
            lightness, green_red, blue_yellow = centres[k]
            for i in range(count):
                d0 = planes[0, i] - lightness
                d1 = planes[1, i] - green_red
                d2 = planes[2, i] - blue_yellow
                distance = d0 * d0 + d1 * d1 + d2 * d2
                closer = distance < smallest[i]
                labels[i] = np.int32(k) if closer else labels[i]
                smallest[i] = distance if closer else smallest[i]
        if step + 1 < rounds:
            _move_centres(planes, labels, centres)
    return labels


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]  # numba has no types
def _move_centres(planes: np.ndarray, labels: np.ndarray, centres: np.ndarray) -> None:  # pragma: no cover - compiled
    sums = np.zeros(centres.shape, dtype=np.float64)
    counts = np.zeros(centres.shape[0], dtype=np.int64)
    for i in range(labels.shape[0]):
        label = labels[i]
        counts[label] += 1
        for channel in range(3):
            sums[label, channel] += planes[channel, i]
    for k in range(centres.shape[0]):
        for channel in range(3):
            if counts[k] > 0:
                centres[k, channel] = sums[k, channel] / counts[k]


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]  # numba has no types
def _differences(planes: np.ndarray) -> np.ndarray:  # pragma: no cover - compiled
    """Squared distance in colour of every cell and its neighbour at each offset, infinite without one; with a rim."""
    _, height, width = planes.shape
    squared = np.full((_OFFSETS.shape[0], height + 2 * _RIM, width + 2 * _RIM), np.inf, dtype=np.float32)
    for index in range(_OFFSETS.shape[0]):
        down, right = _OFFSETS[index]
        first, last = max(0, -right), width - max(0, right)
        for y in range(height - down):
            found = squared[index, y + _RIM, first + _RIM :]
            here, there = planes[:, y, first:], planes[:, y + down, first + right :]
            for x in range(last - first):
                d0 = here[0, x] - there[0, x]
                d1 = here[1, x] - there[1, x]
                d2 = here[2, x] - there[2, x]
                found[x] = d0 * d0 + d1 * d1 + d2 * d2
    return squared


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]  # numba has no types
def _vote(
    opinion: np.ndarray, inside: np.ndarray, vote: np.ndarray, top: int, left: int
) -> None:  # pragma: no cover - compiled
    """Opinions in [-1, 1] become votes; outside the box all vote against."""
    for y in range(inside.shape[0]):
        cast = vote[y + top + _RIM, left + _RIM :]
        for x in range(inside.shape[1]):
            cast[x] = np.float32(opinion[y, x]) if inside[y, x] else np.float32(-1)


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]  # numba has no types
def _hear(
    unary: np.ndarray, weights: np.ndarray, vote: np.ndarray, logit: np.ndarray, top: int, left: int
) -> None:  # pragma: no cover - compiled
    """Unary and the votes of the sixteen neighbours; of each pair of them the one above or to the left comes first."""
    height, width = unary.shape
    first = left + _RIM
    for y in range(height):
        heard = logit[y]
        heard[:] = unary[y]
        middle = y + top + _RIM
        for index in range(_OFFSETS.shape[0]):
            down, right = _OFFSETS[index]
            start = first - right
            pair_before, vote_before = weights[index, middle - down, start:], vote[middle - down, start:]
            pair_after, vote_after = weights[index, middle, first:], vote[middle + down, first + right :]
            for x in range(width):
                heard[x] = heard[x] + pair_before[x] * vote_before[x] + pair_after[x] * vote_after[x]
