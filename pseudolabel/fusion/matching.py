"""Which candidates speak for which object of an image: Box-Quality Ranking among those that may.

An image of thousands of boxes has millions of pairs of an object and a candidate, of which hardly any can serve; no
matrix of all pairs is made.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float32, Int, Int64

from pseudolabel.boxes import iou_matrix
from pseudolabel.candidates import Candidate, GivenBox, boxes_array
from pseudolabel.fusion.arrays import Array

_AT_ONCE = 64  # candidates whose boxes are compared with all objects' in one matrix


class Pairs(NamedTuple):
    """Objects with candidates that may serve them, and how well the boxes meet."""

    row: Int64[np.ndarray, " p"]  # of the object
    column: Int64[np.ndarray, " p"]  # of the candidate
    iou: Float32[np.ndarray, " p"]


class Served(NamedTuple):
    """The candidates that an object gets: source by source, the best box first."""

    columns: list[int]
    iou: Float32[np.ndarray, " k"]


def adaptive_k(
    area_px: Float[Array, "n"], *, k_min: int = 2, k_max: int = 10, small_px: float = 32.0, large_px: float = 96.0
) -> Float[Array, "n"]:
    """How many candidates an object of that box area gets: linear in its side between the two sides given.

    Source: BoxSeg (arXiv 2504.05137), eq. 4; the sides are COCO's small and large, rounding is to the nearest.
    """
    share = ((area_px**0.5 - small_px) / (large_px - small_px)).clip(0.0, 1.0)
    return (k_min + (k_max - k_min) * share + 0.5) // 1


def best_boxes(
    targets: Sequence[GivenBox], candidates: Sequence[Candidate], k: int | Float[Array, "n"], *, min_iou: float
) -> list[Served]:
    """The `k` candidates of each source whose boxes fit an object's box best, before any look at scores.

    Equal IoUs keep the candidates' order, so that the choice is the same on every machine.

    Args:
        k: how many, for all or per object.
        min_iou: candidates below are not chosen however few there are; 0 is the paper's own rule.

    Source: BoxSeg, section 3.3; the floor is the released code's.
    """
    row, column, iou = pairs(targets, candidates, min_iou=min_iou)
    _, source = np.unique([candidate.source for candidate in candidates] or [""], return_inverse=True)
    order = np.lexsort((column, -iou, source[column], row))
    row, column, iou = row[order], column[order], iou[order]
    taken = _place(row, source[column]) < np.broadcast_to(k, len(targets))[row]
    row, column, iou = row[taken], column[taken], iou[taken]
    ends = np.searchsorted(row, np.arange(len(targets) + 1))
    return [Served(column[a:b].tolist(), iou[a:b]) for a, b in pairwise(ends)]


def pairs(targets: Sequence[GivenBox], candidates: Sequence[Candidate], *, min_iou: float) -> Pairs:
    """All pairs whose boxes meet by `min_iou`.

    A bound candidate serves its own object alone, a free one every object of its class (any, where it has none). What
    a candidate's own row says of its IoU with its object goes before what the boxes say.
    """
    parts = [_bound(targets, candidates), *_free(targets, candidates, np.float32(min_iou))]
    found = Pairs(*(np.concatenate(column) for column in zip(*parts, strict=True)))
    meeting = found.iou >= np.float32(min_iou)
    return Pairs(*(column[meeting] for column in found))


def _place(row: Int64[np.ndarray, " p"], source: Int[np.ndarray, " p"]) -> Int64[np.ndarray, " p"]:
    """The place of every pair among its neighbours of the same object and source."""
    places = np.arange(len(row))
    first = np.ones(len(row), dtype=bool)
    first[1:] = (row[1:] != row[:-1]) | (source[1:] != source[:-1])
    within: Int64[np.ndarray, " p"] = places - np.maximum.accumulate(np.where(first, places, 0))
    return within


def _bound(targets: Sequence[GivenBox], candidates: Sequence[Candidate]) -> Pairs:
    own: dict[int | None, list[int]] = defaultdict(list)
    for row, target in enumerate(targets):
        own[target.annotation_id].append(row)
    of = [
        (row, column)
        for column, candidate in enumerate(candidates)
        if candidate.annotation_id is not None
        for row in own.get(candidate.annotation_id, ())
    ]
    return _pairs(of, [_own_iou(targets[row], candidates[column]) for row, column in of])


def _own_iou(target: GivenBox, candidate: Candidate) -> float:
    if candidate.box_iou is not None:
        return candidate.box_iou
    return float(iou_matrix(boxes_array([target]), boxes_array([candidate]))[0, 0])


def _free(targets: Sequence[GivenBox], candidates: Sequence[Candidate], min_iou: np.float32) -> Iterator[Pairs]:
    free: dict[int | None, list[int]] = defaultdict(list)
    for column, candidate in enumerate(candidates):
        if candidate.annotation_id is None:
            free[candidate.category_id].append(column)
    boxes = boxes_array(targets)
    for category, columns in free.items():
        rows = np.array([row for row, one in enumerate(targets) if category in (None, one.category_id)], dtype=np.int64)
        for start in range(0, len(columns), _AT_ONCE):
            some = columns[start : start + _AT_ONCE]
            ious = iou_matrix(boxes[rows], boxes_array([candidates[column] for column in some])).astype(np.float32)
            of, by = np.nonzero(ious >= min_iou)
            yield Pairs(rows[of], np.array(some)[by], ious[of, by])


def _pairs(of: Sequence[tuple[int, int]], ious: Sequence[float]) -> Pairs:
    places = np.array(of, dtype=np.int64).reshape(-1, 2)
    return Pairs(places[:, 0], places[:, 1], np.array(ious, dtype=np.float32))
