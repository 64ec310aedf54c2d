"""How much the candidates of one object say the same.

Box scores of different sources do not mean the same: a semantic region's mean confidence, a detector's class score and
a box-conditioned teacher's own estimate have other ranges. How far a candidate agrees with the other sources is
measured alike for all of them, needs no truth, and depends on the object alone.
"""

from collections.abc import Sequence

import numba
import numpy as np
from jaxtyping import Bool, Float32

_VIEW = 0.8  # least mean IoU with the box of candidates that are views of the whole object


def pairwise_iou(masks: Bool[np.ndarray, "k h w"]) -> Float32[np.ndarray, "k k"]:
    """IoU of every pair of masks; 0 where both are empty, 1 for a mask on its own."""
    if len(masks) == 1:
        return np.ones((1, 1), dtype=np.float32)
    flat = masks.reshape(len(masks), -1).astype(np.float32)
    shared = flat @ flat.T
    area = np.diagonal(shared)
    union = area[:, None] + area[None, :] - shared
    iou: Float32[np.ndarray, "k k"] = shared / np.maximum(union, 1)
    return iou


def support(overlap: Float32[np.ndarray, "k k"], sources: Sequence[str]) -> Float32[np.ndarray, " k"]:
    """What the other sources think of each candidate: its mean IoU with theirs, averaged source by source.

    1 for all where only one source speaks: then there is nobody to ask.
    """
    names = sorted(set(sources))
    if len(names) == 1:
        return np.ones(len(sources), dtype=np.float32)
    member = np.array([[source == name for source in sources] for name in names], dtype=np.float32)
    mean = overlap @ (member / member.sum(axis=1, keepdims=True)).T
    others = 1 - member.T
    average: Float32[np.ndarray, " k"] = (mean * others).sum(axis=1) / others.sum(axis=1)
    return average


def source_agreement(
    overlap: Float32[np.ndarray, "k k"], sources: Sequence[str], speaking: Bool[np.ndarray, " k"]
) -> float | None:
    """Mean IoU between the candidates of different sources, None where fewer than two sources speak."""
    names = np.array(sources)
    pairs = (names[:, None] != names[None, :]) & speaking[:, None] & speaking[None, :]
    return float(overlap[pairs].mean()) if pairs.any() else None


def opinions(
    probability: Float32[np.ndarray, "k h w"],
    inside: tuple[slice, slice],
    sources: Sequence[str],
    box_iou: Float32[np.ndarray, " k"],
    speaking: Bool[np.ndarray, " k"],
) -> tuple[Float32[np.ndarray, "s rows columns"], float | None]:
    """What every source says on the average of its candidates, and how far one with several contradicts itself.

    The latter is the standard deviation among its candidates, averaged over the cells. Asked is the source with the
    most candidates, of two with as many the one that contradicts itself less; None where no source has several.
    Candidates that hardly fit the box, below an IoU of 0.8 on average, are not views of one object but may be pieces
    of it: their source is not asked.

    Args:
        inside: rows and columns of the cells that count.
    """
    own: dict[str, list[int]] = {}
    for place in np.flatnonzero(speaking).tolist():
        own.setdefault(sources[place], []).append(place)
    in_order = [places for _, places in sorted(own.items())]
    rows, columns = inside
    bounds = (rows.start, rows.stop, columns.start, columns.stop)
    said = [_mean_and_spread(probability, np.array(places), *bounds) for places in in_order]
    several = [
        (-len(places), spread)
        for places, (_, spread) in zip(in_order, said, strict=True)
        if len(places) > 1 and box_iou[places].mean() >= _VIEW
    ]
    return np.stack([mean for mean, _ in said]), min(several)[1] if several else None


@numba.njit(cache=True)
def _mean_and_spread(stack, places, top, bottom, left, right):  # type: ignore[no-untyped-def]  # numba infers them
    """Mean over some of a stack's masks, cell by cell, and the mean over the cells of their standard deviation."""
    share = np.float32(1) / np.float32(places.size)
    mean = np.zeros((bottom - top, right - left), dtype=np.float32)
    squares = np.empty(right - left, dtype=np.float32)
    spread = 0.0
    for row in range(bottom - top):
        line = mean[row]
        for place in places:
            cells = stack[place, top + row, left:right]
            for x in range(line.size):
                line[x] += cells[x]
        for x in range(line.size):
            line[x] *= share
        squares[:] = 0
        for place in places:
            cells = stack[place, top + row, left:right]
            for x in range(line.size):
                away = cells[x] - line[x]
                squares[x] += away * away
        for x in range(line.size):
            spread += np.sqrt(squares[x] * share)
    return mean, spread / mean.size
