"""The one grid on which an object's candidates meet.

Candidates of one network lie on one lattice: cells of the same size and phase, cut to different boxes. There fusing
before upsampling is exact, because bilinear reading is linear. Candidates of different networks are read at the centres
of a grid over the object's box that is as fine as the finest of them, but has a bounded number of cells.
"""

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float32

from pseudolabel.masks import Grid, SoftMask, resample

MAX_CELLS = 192  # per side; an object larger than that in pixels is fused at a coarser step
_SAME = 1e-3  # in cells; grids pass through float32 columns


def object_window(box_xyxy: Sequence[float], size_hw: tuple[int, int]) -> Grid:
    """The pixels of an object's box: those whose centres lie in it, at least one, as a grid of stride 1."""
    height, width = size_hw
    x0, x1 = _pixel_span(box_xyxy[0], box_xyxy[2], width)
    y0, y1 = _pixel_span(box_xyxy[1], box_xyxy[3], height)
    return Grid(float(x0), float(y0), 1.0, 1.0, y1 - y0, x1 - x0)


def common_grid(grids: Sequence[Grid], window: Grid, *, max_cells: int = MAX_CELLS) -> Grid:
    """The grid on which to fuse masks that lie on `grids`: their own lattice where they share one, else the window's.

    A shared lattice is cut to the cells that the masks have and the window's pixels read.
    """
    distinct = list(dict.fromkeys(grids))
    if all(share_lattice(distinct[0], grid) for grid in distinct[1:]):
        return _cut_lattice(distinct, window)
    stride_x = max(1.0, min(g.stride_x for g in grids), window.width / max_cells)
    stride_y = max(1.0, min(g.stride_y for g in grids), window.height / max_cells)
    columns, rows = math.ceil(window.width / stride_x), math.ceil(window.height / stride_y)
    return Grid(window.x0, window.y0, window.width / columns, window.height / rows, rows, columns)


def on_grid(masks: Sequence[SoftMask], grid: Grid) -> Float32[np.ndarray, "k h w"]:
    """Probabilities in [0, 1] of all masks on one grid, zero outside a mask's own rectangle."""
    if all(mask.grid == grid for mask in masks):
        out = np.stack([mask.probability for mask in masks]).astype(np.float32)
    else:
        out = np.zeros((len(masks), grid.height, grid.width), dtype=np.float32)
        for own_grid in dict.fromkeys(mask.grid for mask in masks):
            _read_cells(masks, own_grid, grid, out)
    out *= np.float32(1 / 255)
    return out


def box_cells(grid: Grid, window: Grid) -> tuple[slice, slice]:
    """Rows and columns of the cells whose centre lies in the window; there may be none."""
    x = grid.x0 + (np.arange(grid.width) + 0.5) * grid.stride_x
    y = grid.y0 + (np.arange(grid.height) + 0.5) * grid.stride_y
    left, top, right, bottom = window.extent_xyxy
    return slice(*y.searchsorted((top, bottom)).tolist()), slice(*x.searchsorted((left, right)).tolist())


def cells_inside(grid: Grid, window: Grid) -> tuple[slice, slice]:
    """Rows and columns of the cells whose centre lies in the window; all of them where it is smaller than a cell."""
    left, top, right, bottom = window.extent_xyxy
    rows = _inside(grid.y0, grid.stride_y, grid.height, top, bottom)
    columns = _inside(grid.x0, grid.stride_x, grid.width, left, right)
    if rows.start < rows.stop and columns.start < columns.stop:
        return rows, columns
    return slice(0, grid.height), slice(0, grid.width)


def _inside(start: float, stride: float, count: int, low: float, high: float) -> slice:
    first, last = ((edge - start) / stride - 0.5 for edge in (low, high))
    return slice(max(math.ceil(first), 0), min(math.ceil(last), count))


def _pixel_span(start: float, end: float, size: int) -> tuple[int, int]:
    first = min(max(math.floor(start + 0.5), 0), size - 1)
    return first, min(max(math.floor(end + 0.5), first + 1), size)


def share_lattice(first: Grid, other: Grid) -> bool:
    """Whether the cells of two grids coincide wherever both have any."""
    return (
        abs(other.stride_x - first.stride_x) * max(first.width, other.width) < _SAME * first.stride_x
        and abs(other.stride_y - first.stride_y) * max(first.height, other.height) < _SAME * first.stride_y
        and _is_whole((other.x0 - first.x0) / first.stride_x)
        and _is_whole((other.y0 - first.y0) / first.stride_y)
    )


def _is_whole(steps: float) -> bool:
    return abs(steps - round(steps)) < _SAME


def _offset(grid: Grid, origin: Grid) -> tuple[int, int]:
    """(rows, columns) from `origin`'s first cell to `grid`'s, on their common lattice."""
    return round((grid.y0 - origin.y0) / origin.stride_y), round((grid.x0 - origin.x0) / origin.stride_x)


def _read_cells(masks: Sequence[SoftMask], own_grid: Grid, grid: Grid, out: Float32[np.ndarray, "k h w"]) -> None:
    """Fill the cells of those masks that lie on `own_grid`."""
    chosen = [place for place, mask in enumerate(masks) if mask.grid == own_grid]
    if not share_lattice(grid, own_grid):
        for place in chosen:
            out[place] = resample(masks[place].probability.astype(np.float32), own_grid, grid)
        return
    row, column = _offset(own_grid, grid)
    rows, own_rows = _shared_span(row, own_grid.height, grid.height)
    columns, own_columns = _shared_span(column, own_grid.width, grid.width)
    for place in chosen:
        out[place, rows, columns] = masks[place].probability[own_rows, own_columns]


def _shared_span(start: int, own: int, whole: int) -> tuple[slice, slice]:
    """Where `own` cells from `start` on lie among `whole` ones, and which of their own these are."""
    first, last = min(max(start, 0), whole), max(min(start + own, whole), 0)
    last = max(first, last)
    return slice(first, last), slice(first - start, last - start)


def _cut_lattice(grids: Sequence[Grid], window: Grid) -> Grid:
    """The masks' cells from one before to one after the window, so that its border pixels keep both neighbours."""
    origin = grids[0]
    left, top, right, bottom = window.extent_xyxy
    offsets = [(_offset(grid, origin), grid) for grid in grids]
    spans_y = [(row, row + grid.height) for (row, _), grid in offsets]
    spans_x = [(column, column + grid.width) for (_, column), grid in offsets]
    y0, y1 = _cut_span(spans_y, (top - origin.y0) / origin.stride_y, (bottom - origin.y0) / origin.stride_y)
    x0, x1 = _cut_span(spans_x, (left - origin.x0) / origin.stride_x, (right - origin.x0) / origin.stride_x)
    left, top = origin.x0 + x0 * origin.stride_x, origin.y0 + y0 * origin.stride_y
    return Grid(left, top, origin.stride_x, origin.stride_y, y1 - y0, x1 - x0)


def _cut_span(spans: Sequence[tuple[int, int]], start: float, end: float) -> tuple[int, int]:
    first = min(first for first, _ in spans)
    last = max(last for _, last in spans)
    cut = max(math.floor(start) - 1, first), min(math.ceil(end) + 1, last)
    return cut if cut[0] < cut[1] else (first, first + 1)  # nothing of the masks is near: one cell says so
