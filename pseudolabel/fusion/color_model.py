"""Which cells look like the object and which like its surroundings: one mean-field pass on a small grid.

The energy is that of GrabCut and of dense CRFs, cut down to what a crop of at most 96 cells a side needs: colours in a
few clusters whose share of object and of ground is re-estimated from the present belief, and a pull between
neighbours one and three cells apart that stops at edges.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Int64, UInt8

_STEPS = ((0, 1), (1, 0), (1, 1), (1, -1), (0, 3), (3, 0), (3, 3), (3, -3))
_FROM_RGB = np.array(
    [[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169], [0.019334, 0.119193, 0.950227]], dtype=np.float32
)
_WHITE = np.array([0.950456, 1.0, 1.088754], dtype=np.float32)
_SURE = 20.0  # log-odds of what is known


@dataclass(frozen=True, slots=True)
class ColorField:
    """Weights of the field's parts, in log-odds."""

    trust: float = 1.0  # in the mask that it starts from
    color: float = 0.5
    smoothness: float = 0.5
    clusters: int = 24
    prior_cells: float = 6.0  # of either side, in every cluster, before any is counted
    largest_color: float = 3.0  # log-odds that a colour alone may give
    rounds: int = 2  # of estimating colours
    iterations: int = 3  # of mean field in each


def mean_field(
    start: Float32[np.ndarray, "h w"],
    inside: Bool[np.ndarray, "h w"],
    rgb: UInt8[np.ndarray, "h w 3"],
    field: ColorField,
) -> Float32[np.ndarray, "h w"]:
    """Probabilities that agree with `start`, with the colours and with their neighbours; zero outside the box."""
    lab = to_lab(rgb)
    cluster = color_clusters(lab.reshape(-1, 3), field.clusters).reshape(inside.shape)
    pulls = [field.smoothness * pull for pull in _pulls(lab)]
    clipped = np.clip(start, 0.02, 0.98)
    own = field.trust * np.log(clipped / (1 - clipped))
    belief = np.where(inside, start, 0).astype(np.float32)
    for _ in range(field.rounds):
        log_odds = own + field.color * _color_evidence(belief, cluster, field)
        for _ in range(field.iterations):
            log_odds_now = np.where(inside, log_odds + _pulled(belief, pulls), -_SURE)
            belief = (1 / (1 + np.exp(-np.clip(log_odds_now, -_SURE, _SURE)))).astype(np.float32)
    result: Float32[np.ndarray, "h w"] = np.where(inside, belief, 0)
    return result


def to_lab(rgb: UInt8[np.ndarray, "h w 3"]) -> Float32[np.ndarray, "h w 3"]:
    """CIE-Lab under D65 of sRGB values of 0 to 255."""
    share = rgb.astype(np.float32) / 255
    linear = np.where(share > 0.04045, ((share + 0.055) / 1.055) ** 2.4, share / 12.92)
    xyz = linear @ _FROM_RGB.T / _WHITE
    root = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    x, y, z = np.moveaxis(root, -1, 0)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1).astype(np.float32)


def color_clusters(lab: Float32[np.ndarray, "n 3"], clusters: int, *, rounds: int = 6) -> Int64[np.ndarray, " n"]:
    """The cluster of every colour by k-means that starts from equal steps in lightness, so that nothing is random."""
    count = min(clusters, len(lab))
    order = np.argsort(lab[:, 0], kind="stable")
    centres = lab[order[np.linspace(0, len(lab) - 1, count).astype(np.int64)]].astype(np.float64)
    for _ in range(rounds):
        nearest = (np.square(centres).sum(axis=1) - 2 * lab @ centres.T).argmin(axis=1)
        sizes = np.bincount(nearest, minlength=count)
        sums = np.stack([np.bincount(nearest, lab[:, axis], minlength=count) for axis in range(3)], axis=1)
        centres = np.where(sizes[:, None] > 0, sums / np.maximum(sizes, 1)[:, None], centres)
    result: Int64[np.ndarray, " n"] = nearest
    return result


def _color_evidence(
    belief: Float32[np.ndarray, "h w"], cluster: Int64[np.ndarray, "h w"], field: ColorField
) -> Float32[np.ndarray, "h w"]:
    """Log-odds of a cell's colour under object and ground, each side smoothed towards their overall shares."""
    flat, count = cluster.ravel(), int(cluster.max()) + 1
    objects = np.bincount(flat, belief.ravel(), minlength=count)
    grounds = np.bincount(flat, 1 - belief.ravel(), minlength=count)
    total_object, total_ground = objects.sum(), grounds.sum()
    if total_object < 1e-3 or total_ground < 1e-3:
        return np.zeros_like(belief)
    prior = field.prior_cells / (total_object + total_ground)
    ratio = (objects + prior * total_object) / (grounds + prior * total_ground) * (total_ground / total_object)
    evidence = np.clip(np.log(ratio), -field.largest_color, field.largest_color)
    shown: Float32[np.ndarray, "h w"] = evidence.astype(np.float32)[cluster]
    return shown


def _pulls(lab: Float32[np.ndarray, "h w 3"]) -> list[Float32[np.ndarray, "a b"]]:
    """For each step the strength with which cells and their neighbours pull at each other: less across edges."""
    squares = [np.square(lab[near] - lab[far]).sum(axis=-1) for near, far in _pairs(lab.shape[:2])]
    usual = np.mean([square.mean() if square.size else 0.0 for square in squares[:2]]) + 1e-3
    return [
        (np.exp(-square / (2 * usual)) / np.hypot(*step)).astype(np.float32)
        for square, step in zip(squares, _STEPS, strict=True)
    ]


def _pulled(belief: Float32[np.ndarray, "h w"], pulls: list[Float32[np.ndarray, "a b"]]) -> Float32[np.ndarray, "h w"]:
    leaning = 2 * belief - 1
    total = np.zeros_like(belief)
    for (near, far), pull in zip(_pairs(belief.shape), pulls, strict=True):
        total[near] += pull * leaning[far]
        total[far] += pull * leaning[near]
    return total


def _pairs(shape_hw: tuple[int, ...]) -> list[tuple[tuple[slice, slice], tuple[slice, slice]]]:
    """For each step the cells that have such a neighbour, and these neighbours."""
    height, width = shape_hw
    return [
        (
            (slice(0, max(height - dy, 0)), slice(max(0, -dx), max(width - max(0, dx), 0))),
            (slice(dy, height), slice(max(0, dx), max(width + min(0, dx), 0))),
        )
        for dy, dx in _STEPS
    ]
