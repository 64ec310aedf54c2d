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
from jaxtyping import Bool, Float32, Int64

_OFFSETS = np.array([(0, 1), (1, 0), (1, 1), (1, -1), (0, 3), (3, 0), (3, 3), (3, -3)], dtype=np.int64)
CLUSTERS = 24  # of colours
_OUTSIDE = np.float32(-20)
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


def refine(
    prior_logit: Float32[np.ndarray, "h w"],
    lab: Float32[np.ndarray, "h w 3"],
    inside: Bool[np.ndarray, "h w"],
    unknown: Bool[np.ndarray, "h w"],
    settings: Refinement,
    cluster: Int64[np.ndarray, "h w"] | None = None,
) -> Float32[np.ndarray, "h w"]:
    """Posterior foreground probability, 0 outside the box.

    Args:
        prior_logit: log-odds before looking at colours.
        lab: CIE-Lab colours.
        inside: cells of the box; all others are background.
        unknown: cells whose colours must not count as background (the same class outside the box).
        settings: weights.
        cluster: of every cell's colour, as `cluster_colours` finds it, where that is known already.
    """
    if cluster is None:
        cluster = cluster_colours(lab.reshape(-1, 3), settings.clusters).reshape(inside.shape)
    weights = np.float32(settings.smoothness) * contrast_weights(lab, settings.contrast)
    prior = np.where(inside, prior_logit, _OUTSIDE)
    posterior: Float32[np.ndarray, "h w"] = np.where(inside, _sigmoid(prior), 0).astype(np.float32)
    for _ in range(settings.rounds):
        colour = _colour_logit(cluster, posterior, unknown, settings.colour_limit)
        unary = np.where(inside, prior + settings.colour * colour, _OUTSIDE).astype(np.float32)
        posterior, logit = _mean_field(unary, weights, inside, posterior, settings.steps)
        prior = prior + _tightness_pull(logit, inside, settings.pull_limit)
    return posterior


def rgb_to_lab(rgb: Float32[np.ndarray, "h w 3"]) -> Float32[np.ndarray, "h w 3"]:
    """CIE-Lab (D65) of sRGB values in [0, 255]."""
    value = rgb / np.float32(255)
    linear = np.where(value > 0.04045, ((value + 0.055) / 1.055) ** 2.4, value / 12.92).astype(np.float32)
    xyz = linear @ _LAB_FROM_RGB.T / _WHITE
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    lab = [116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])]
    stacked: Float32[np.ndarray, "h w 3"] = np.stack(lab, axis=-1).astype(np.float32)
    return stacked


def cluster_colours(colours: Float32[np.ndarray, "n 3"], clusters: int) -> Int64[np.ndarray, " n"]:
    """Index of the colour cluster of every cell: k-means from seeds at even ranks of lightness, so without chance."""
    order = np.argsort(colours[:, 0], kind="stable")
    seeds = order[np.linspace(0, len(colours) - 1, min(clusters, len(colours))).astype(np.int64)]
    cluster: Int64[np.ndarray, " n"] = _k_means(np.ascontiguousarray(colours), colours[seeds].copy(), 6)
    return cluster


def contrast_weights(lab: Float32[np.ndarray, "h w 3"], contrast: float) -> Float32[np.ndarray, "8 h w"]:
    """Weight in [0, 1] of the pair (cell, cell + offset) for eight offsets, 0 where that lies outside."""
    height, width, _ = lab.shape
    near = [np.square(lab[:, 1:] - lab[:, :-1]).sum(-1), np.square(lab[1:] - lab[:-1]).sum(-1)]
    scale = np.mean([d.mean() if d.size else 0.0 for d in near]) + 1e-3
    weights = np.zeros((len(_OFFSETS), height, width), dtype=np.float32)
    for index, (down, right) in enumerate(_OFFSETS):
        here, there = _shifted(height, down), _shifted(width, right)
        difference = np.square(lab[here[0], there[0]] - lab[here[1], there[1]]).sum(-1)
        weights[index, here[0], there[0]] = np.exp(-difference / (2 * contrast * scale)) / np.hypot(down, right)
    return weights


def _shifted(size: int, step: int) -> tuple[slice, slice]:
    """Slices of the cells that have a neighbour `step` further on, and of those neighbours."""
    first, last = max(0, -step), max(0, size - max(0, step))
    return slice(first, max(first, last)), slice(first + step, max(first, last) + step)


def _sigmoid(logit: Float32[np.ndarray, "h w"]) -> Float32[np.ndarray, "h w"]:
    probability: Float32[np.ndarray, "h w"] = 1 / (1 + np.exp(-np.clip(logit, -30, 30)))
    return probability


def _colour_logit(
    cluster: Int64[np.ndarray, "h w"],
    posterior: Float32[np.ndarray, "h w"],
    unknown: Bool[np.ndarray, "h w"],
    limit: float,
) -> Float32[np.ndarray, "h w"]:
    """Log ratio of the likelihoods of a cell's colour, drawn towards 0 by six cells' worth of doubt per cluster."""
    ids = cluster.ravel()
    count = int(ids.max()) + 1
    front = np.bincount(ids, posterior.ravel(), count)
    back = np.bincount(ids, np.where(unknown, 0, 1 - posterior).ravel(), count)
    share = front.sum() / max(front.sum() + back.sum(), 1e-6)
    share = min(max(share, 1e-3), 1 - 1e-3)
    ratio = np.log((front + 6 * share) / (back + 6 * (1 - share))) - np.log(share / (1 - share))
    logit: Float32[np.ndarray, "h w"] = np.clip(ratio, -limit, limit).astype(np.float32)[cluster]
    return logit


def _tightness_pull(
    logit: Float32[np.ndarray, "h w"], inside: Bool[np.ndarray, "h w"], limit: float
) -> Float32[np.ndarray, "h w"]:
    """What the cells of a row or column without foreground lack to even odds, at most `limit`."""
    row = np.clip(-logit.max(axis=1, keepdims=True), 0, limit)
    column = np.clip(-logit.max(axis=0, keepdims=True), 0, limit)
    pull: Float32[np.ndarray, "h w"] = np.where(inside, np.maximum(row, column), 0).astype(np.float32)
    return pull


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _k_means(colours: np.ndarray, centres: np.ndarray, rounds: int) -> np.ndarray:  # pragma: no cover
    labels = np.zeros(colours.shape[0], dtype=np.int64)
    for step in range(rounds):
        sums = np.zeros(centres.shape, dtype=np.float64)
        counts = np.zeros(centres.shape[0], dtype=np.int64)
        for i in range(colours.shape[0]):
            nearest = 0
            smallest = np.float32(np.inf)
            for k in range(centres.shape[0]):
                d0 = colours[i, 0] - centres[k, 0]
                d1 = colours[i, 1] - centres[k, 1]
                d2 = colours[i, 2] - centres[k, 2]
                distance = d0 * d0 + d1 * d1 + d2 * d2
                if distance < smallest:
                    smallest = distance
                    nearest = k
            labels[i] = nearest
            counts[nearest] += 1
            for channel in range(3):
                sums[nearest, channel] += colours[i, channel]
        if step + 1 < rounds:
            for k in range(centres.shape[0]):
                for channel in range(3):
                    if counts[k] > 0:
                        centres[k, channel] = sums[k, channel] / counts[k]
    return labels


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _mean_field(  # pragma: no cover
    unary: np.ndarray, weights: np.ndarray, inside: np.ndarray, posterior: np.ndarray, steps: int
) -> tuple[np.ndarray, np.ndarray]:
    height, width = unary.shape
    vote = 2 * posterior - np.float32(1)
    logit = unary.copy()
    for _ in range(steps):
        logit[:] = unary
        for index in range(_OFFSETS.shape[0]):
            down, right = _OFFSETS[index]
            for y in range(height - down):
                for x in range(max(0, -right), width - max(0, right)):
                    weight = weights[index, y, x]
                    logit[y, x] += weight * vote[y + down, x + right]
                    logit[y + down, x + right] += weight * vote[y, x]
        for y in range(height):
            for x in range(width):
                vote[y, x] = np.tanh(logit[y, x] / 2) if inside[y, x] else np.float32(-1)
    return (vote + np.float32(1)) / 2, logit
