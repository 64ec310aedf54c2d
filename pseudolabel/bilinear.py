"""Bilinear reading of cells at equally spaced centres, in one pass that also sums up what is above a threshold.

The convention is that of `pseudolabel.masks`. For a crop of a few hundred pixels, two small matrix products cost less
than making their matrices, and this costs less than either.
"""

import numba
import numpy as np


@numba.njit(cache=True)
def _axis(start, step, count, cells):  # type: ignore[no-untyped-def]  # numba infers them
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
def read(cells, column, step_x, row, step_y, tau, out):  # type: ignore[no-untyped-def]  # numba infers them
    """Fill `out` (height, width; float32) from `cells` (h, w; float32), zero where `cells` do not reach.

    `column` and `row` are where the first of `out`'s centres lies, in cells from the outer edge of the first one, the
    steps those between its centres. Returns the sum and the number of the values above `tau`.
    """
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
