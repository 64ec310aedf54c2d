"""From a model's answer on its own grid to a soft mask cut to the box, and what the whole answer says about the box.

The answer is compared with the box before it is cut to it: a mask that runs far beyond its box is a mask of something
else, which the cut would hide. Logits are read between cells before the sigmoid: many are beyond +-10, and a
probability that has saturated says no more where between two cells the contour runs.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Float32

from pseudolabel.boxes import clip_xyxy, iou_matrix
from pseudolabel.errors import RejectError
from pseudolabel.masks import Grid, SoftMask, box_cells, resample
from pseudolabel.prompted.base import BoxXyxy, PromptedMask
from pseudolabel.prompted.frame import Window

Scale = Literal["logit", "probability"]
_FOREGROUND = 128  # the smallest byte of a probability above one half
_LEVEL: dict[Scale, float] = {"logit": 0.0, "probability": 0.5}


@dataclass(frozen=True, slots=True)
class Answer:
    """A model's answer for one box on the model's grid, which may reach beyond the window of the image that it saw."""

    values: Float32[np.ndarray, "h w"]
    grid: Grid
    window: Window
    scale: Scale
    score: float  # how sure the model is of it


def prompted_mask(
    answer: Answer, given: int, box_xyxy: BoxXyxy, size_hw: tuple[int, int], *, by_box: bool = False
) -> PromptedMask | None:
    """The mask for a box; None where not one cell in the box is foreground.

    Args:
        by_box: multiply the score by the IoU of the box with the tight box of the uncut mask.

    Raises:
        RejectError: `non_finite`.
    """
    values, grid = _on_image(answer)
    if not (np.isfinite(values).all() and np.isfinite(answer.score)):
        raise RejectError("non_finite", f"the model's answer for the box {[round(side, 1) for side in box_xyxy]}")
    reach = reach_xyxy(values, grid, level=_LEVEL[answer.scale])
    cut = _cut(values, grid, box_xyxy, size_hw, answer.scale)
    if reach is None or not (cut.probability >= _FOREGROUND).any():
        return None
    within = clip_xyxy(np.array([reach]), size_hw)
    overlap = float(iou_matrix(within, np.array([box_xyxy]))[0, 0])
    score = float(np.clip(answer.score, 0, 1))
    return PromptedMask(given, score * overlap if by_box else score, overlap, _four(within[0]), cut)


def reach_xyxy(values: Float32[np.ndarray, "h w"], grid: Grid, *, level: float) -> BoxXyxy | None:
    """The tight box of what lies above `level`; None where nothing does.

    Its sides lie where the largest value of a column (or row) crosses the level, linearly between centres; where the
    outermost cells are above it, at the edge of the grid.
    """
    columns, rows = _crossing(values.max(axis=0), level), _crossing(values.max(axis=1), level)
    if columns is None or rows is None:
        return None
    left, right = (grid.x0 + one * grid.stride_x for one in columns)
    top, bottom = (grid.y0 + one * grid.stride_y for one in rows)
    return (left, top, right, bottom)


def stability(logits: Float32[np.ndarray, "h w"], offset: float = 1.0) -> float:
    """IoU of the masks at the logits +offset and -offset, one inside the other; 0 where there is none.

    Source: Kirillov et al., Segment Anything (arXiv 2304.02643), section 4.
    """
    inner, outer = int((logits > offset).sum()), int((logits > -offset).sum())
    return inner / outer if outer else 0.0


def expected_iou(probability: Float32[np.ndarray, "h w"]) -> float:
    """IoU that the mask at one half would have on average if the probabilities were true; 0 for an empty one."""
    mask = probability > 0.5
    inside = float(probability[mask].sum())
    union = int(mask.sum()) + float(probability[~mask].sum())
    return inside / union if mask.any() else 0.0


def _on_image(answer: Answer) -> tuple[Float32[np.ndarray, "h w"], Grid]:
    """The cells that reach into the window: what a model says of its padding is no part of a mask."""
    grid, (_, _, right, bottom) = answer.grid, answer.window
    width = _reaching(grid.x0, grid.stride_x, grid.width, right)
    height = _reaching(grid.y0, grid.stride_y, grid.height, bottom)
    return answer.values[:height, :width], Grid(grid.x0, grid.y0, grid.stride_x, grid.stride_y, height, width)


def _reaching(start: float, stride: float, cells: int, limit: int) -> int:
    return max(min(cells, int(np.ceil((limit - start) / stride - 1e-6))), 1)


def _crossing(profile: Float32[np.ndarray, " n"], level: float) -> tuple[float, float] | None:
    """Where a profile over cells rises above the level first and falls below it last, in cells from the outer edge."""
    above = np.flatnonzero(profile > level)
    if not above.size:
        return None
    first, last = int(above[0]), int(above[-1])
    low = 0.0 if first == 0 else first + 0.5 - _share(profile[first], profile[first - 1], level)
    end = len(profile)
    high = float(end) if last == end - 1 else last + 0.5 + _share(profile[last], profile[last + 1], level)
    return low, high


def _share(inside: float, outside: float, level: float) -> float:
    """How far from the inner centre to the outer one the level is crossed."""
    return float((inside - level) / (inside - outside))


def _cut(
    values: Float32[np.ndarray, "h w"], grid: Grid, box_xyxy: BoxXyxy, size_hw: tuple[int, int], scale: Scale
) -> SoftMask:
    target = box_cells(box_xyxy, size_hw)
    read = resample(values, grid, target)
    probability = 1 / (1 + np.exp(-np.clip(read, -30, 30))) if scale == "logit" else np.clip(read, 0, 1)
    return SoftMask(target, np.rint(probability * 255).astype(np.uint8))


def _four(box_xyxy: Float[np.ndarray, "4"]) -> BoxXyxy:
    left, top, right, bottom = (float(side) for side in box_xyxy)
    return left, top, right, bottom
