"""A fused mask's probabilities at pixels, in one pass that also sums up what is above the threshold.

The reading is that of `pseudolabel.masks.resample`; for a crop of a few hundred pixels, two small matrix products cost
less than making their matrices, and this costs less than either.
"""

import numba
import numpy as np
from jaxtyping import Float32

from pseudolabel.masks import Grid


def to_pixels(
    probability: Float32[np.ndarray, "h w"], grid: Grid, window: Grid, *, tau_pixel: float = 0.5
) -> tuple[Float32[np.ndarray, "window_h window_w"], float]:
    """The mask at the window's pixels, and the mean of the pixels above the threshold (0 if there is none).

    What the grid does not reach is zero.
    """
    out = np.empty((window.height, window.width), dtype=np.float32)
    column, row = _first_centre(window, grid)
    step_x, step_y = window.stride_x / grid.stride_x, window.stride_y / grid.stride_y
    total, count = _read(np.ascontiguousarray(probability), column, step_x, row, step_y, np.float32(tau_pixel), out)
    return out, total / max(count, 1)


def _first_centre(window: Grid, grid: Grid) -> tuple[float, float]:
    x = (window.x0 + 0.5 * window.stride_x - grid.x0) / grid.stride_x
    y = (window.y0 + 0.5 * window.stride_y - grid.y0) / grid.stride_y
    return x, y


@numba.njit(cache=True)
def _axis(start, step, count, cells):  # type: ignore[no-untyped-def]
    """For each target the lower cell, the share of the upper one, and 1 where it lies on the source, else 0."""
    low = np.empty(count, dtype=np.int64)
    share = np.empty(count, dtype=np.float32)
    inside = np.empty(count, dtype=np.float32)
    for i in range(count):
        position = start + i * step
        inside[i] = 0 <= position <= cells
        position = min(max(position - 0.5, 0.0), cells - 1.0)
        low[i] = min(int(position), max(cells - 2, 0))
        share[i] = position - low[i]
    return low, share, inside


@numba.njit(cache=True)
def _read(cells, column, step_x, row, step_y, tau, out):  # type: ignore[no-untyped-def]
    height, width = cells.shape
    low_x, share_x, inside_x = _axis(column, step_x, out.shape[1], width)
    low_y, share_y, inside_y = _axis(row, step_y, out.shape[0], height)
    one = np.float32(1)  # a bare 1 would lift the arithmetic to float64
    line = np.empty(width + 1, dtype=np.float32)
    total, count = 0.0, 0
    for y in range(out.shape[0]):
        if inside_y[y] == 0:
            out[y] = 0
            continue
        lower, upper = cells[low_y[y]], cells[min(low_y[y] + 1, height - 1)]
        for x in range(width):
            line[x] = (one - share_y[y]) * lower[x] + share_y[y] * upper[x]
        line[width] = line[width - 1]
        values = out[y]
        for x in range(values.size):
            values[x] = ((one - share_x[x]) * line[low_x[x]] + share_x[x] * line[low_x[x] + 1]) * inside_x[x]
        for x in range(values.size):
            above = values[x] > tau
            total += values[x] * above
            count += above
    return total, count
