"""SISeg's walk on a fused mask: object and background spread from where they are sure up to the boundaries between.

Source: the semantic-aware propagation of SISeg and IRNet. Ours is that two maps walk, p s and (1 - p) s of the fused
probability p with s = |2 p - 1|, how sure it is: what is undecided gives nothing and takes the share q of the first in
both, and the result is s p + (1 - s) q. Without s, whole masks are evened out, which lowered every figure.
"""

import math

import numpy as np
from jaxtyping import Float32

from pseudolabel.masks import Grid, SoftMask, resample
from pseudolabel.siseg.random_walk import RADIUS, TOLERANCE, walk

MARGIN_CELLS = 2 * RADIUS  # of the surroundings, which the background spreads from


def by_boundary(
    probability: Float32[np.ndarray, "h w"], window: Grid, boundary: SoftMask, *, steps: int
) -> Float32[np.ndarray, "h w"]:
    """Probabilities at the window's pixels after the walk.

    Args:
        boundary: probability of a boundary, on equal cells over the whole image.
        steps: of the walk; the more, the evener what lies between two boundaries.
    """
    part = _around(window, boundary)
    cells = part.probability.astype(np.float32) / 255
    start = resample(probability, window, part.grid)
    sure = np.abs(2 * start - 1)
    spread = np.maximum(walk(np.stack([start * sure, (1 - start) * sure]), cells, steps=steps), 0)
    total = spread.sum(axis=0)
    share = np.where(total > 2 * TOLERANCE, spread[0] / np.maximum(total, TOLERANCE), start)  # unreached: as it was
    reached = resample(share.astype(np.float32), part.grid, window)
    own = np.abs(2 * probability - 1)
    mixed: Float32[np.ndarray, "h w"] = own * probability + (1 - own) * reached
    return mixed


def _around(window: Grid, boundary: SoftMask) -> SoftMask:
    """The cells that the window and its surroundings touch."""
    grid = boundary.grid
    left, top, right, bottom = window.extent_xyxy
    x0, x1 = _cells(left, right, grid.stride_x, grid.width)
    y0, y1 = _cells(top, bottom, grid.stride_y, grid.height)
    own = Grid(
        grid.x0 + x0 * grid.stride_x, grid.y0 + y0 * grid.stride_y, grid.stride_x, grid.stride_y, y1 - y0, x1 - x0
    )
    return SoftMask(own, boundary.probability[y0:y1, x0:x1])


def _cells(low: float, high: float, stride: float, count: int) -> tuple[int, int]:
    return max(int(low / stride) - MARGIN_CELLS, 0), min(math.ceil(high / stride) + MARGIN_CELLS, count)
