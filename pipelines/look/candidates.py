"""Candidates as people see them: the best of each source, as a mask of pixels."""

from collections.abc import Iterable

import numpy as np

from pseudolabel.candidates import Candidate
from pseudolabel.masks import PixelMask, pixel_window, resample

_FOREGROUND = 0.5


def best_of_each_source(candidates: Iterable[Candidate]) -> list[Candidate]:
    """One candidate per source, the one that its source is surest of; in the order of the sources."""
    best: dict[str, Candidate] = {}
    for one in candidates:
        if one.source not in best or _rank(one) > _rank(best[one.source]):
            best[one.source] = one
    return list(best.values())


def candidate_mask(one: Candidate, size_hw: tuple[int, int]) -> PixelMask:
    """The pixels that are foreground by a candidate's own probabilities, within its grid."""
    grid = pixel_window(one.mask.grid.extent_xyxy, size_hw)
    probability = one.mask.probability.astype(np.float32) / 255
    return PixelMask(int(grid.x0), int(grid.y0), resample(probability, one.mask.grid, grid) >= _FOREGROUND)


def candidate_label(one: Candidate) -> str:
    """`semantic 0.91`: the source and how sure it is."""
    return f"{one.source} {one.box_score:.2f}"


def _rank(one: Candidate) -> tuple[float, float]:
    return ((one.box_iou or 0.0) * one.box_score, one.box_score)
