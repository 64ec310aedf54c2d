"""Following a displacement field to the centroids it points at, and naming the cells that arrive at the same one."""

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int32, Int64
from numba import njit
from scipy import ndimage
from torch import Tensor

STEPS = 300
WEAK_CELLS = 1.5  # IRNet has 2.5; compared on drawn scenes, see docs/siseg.md


def refine_centroids(field: Float32[np.ndarray, "2 h w"], *, steps: int = STEPS) -> Int32[np.ndarray, "2 h w"]:
    """The cell (row, column) at which every cell arrives after `steps` bilinear steps c <- clip(c + D(c)).

    Every path is followed in registers in float32. A path that has come back to an earlier position repeats itself
    for good, so the rest of the steps is taken modulo its length: the result is that of all steps, bit for bit.

    Source: SISeg, refinement of centroids; the cycle detection is Brent's.
    """
    interleaved = np.ascontiguousarray(np.moveaxis(field, 0, -1), dtype=np.float32)
    centroids: Int32[np.ndarray, "2 h w"] = _follow_all(interleaved, steps)
    return centroids


def refine_centroids_batch(field: Float[Tensor, "b 2 h w"], *, steps: int = STEPS) -> Int64[Tensor, "b 2 h w"]:
    """The same for a batch on any device: every step for all cells at once, nothing returns to the host meanwhile."""
    batch, _, height, width = field.shape
    flat = field.flatten(2)
    limits = field.new_tensor([height - 1, width - 1]).view(1, 2, 1)
    position = _cell_positions(field)
    for _ in range(steps):
        position = torch.minimum((position + _read_bilinear(flat, position, width)).clamp_(min=0), limits)
    return position.round_().long().view(batch, 2, height, width)


def cluster_cells(
    field: Float32[np.ndarray, "2 h w"],
    centroids: Int32[np.ndarray, "2 h w"],
    *,
    weak_cells: float = WEAK_CELLS,
    ground: Bool[np.ndarray, "h w"] | None = None,
) -> Int32[np.ndarray, "h w"]:
    """Instance ids from 1, by the region of weak displacement that a cell arrives in; 0 where it arrives in none.

    Args:
        field: (dy, dx) in cells.
        centroids: from `refine_centroids`.
        weak_cells: a displacement shorter than this marks the region around a centroid.
        ground: where regions may lie; default: everywhere. On background the field is weak all over, so that one
            region would join every object whose own field is weak at its rim.
    """
    weak = np.hypot(field[0], field[1]) < weak_cells
    regions, _ = ndimage.label(weak if ground is None else weak & ground)
    arrived = regions[centroids[0], centroids[1]]
    names = np.unique(arrived[arrived > 0])
    compressed = np.zeros(regions.max() + 1, dtype=np.int32)
    compressed[names] = np.arange(1, len(names) + 1)
    result: Int32[np.ndarray, "h w"] = compressed[arrived]
    return result


def disagreement(centroids: Int32[np.ndarray, "2 n"], cells: Int64[np.ndarray, "2 n"]) -> float:
    """How far a piece's cells arrive from its middle: the mean distance, in radii of a disc of the piece's area.

    0 for a whole object of a perfect field, 1 and more for a part of one and for two taken as one.
    """
    middle = cells.mean(axis=1, keepdims=True)
    distance = np.hypot(*(centroids - middle)).mean()
    return float(distance / np.sqrt(cells.shape[1] / np.pi))


def _cell_positions(field: Tensor) -> Tensor:
    height, width = field.shape[-2:]
    rows, columns = torch.meshgrid(
        torch.arange(height, device=field.device), torch.arange(width, device=field.device), indexing="ij"
    )
    start = torch.stack([rows, columns]).flatten(1).to(field.dtype)
    return start.expand(field.shape[0], -1, -1)


def _read_bilinear(flat: Tensor, position: Tensor, width: int) -> Tensor:
    """`flat` (b, 2, cells) at real-valued positions (b, 2, n); the order of operations is that of `_step`."""
    height = flat.shape[2] // width
    low = position.floor()
    fraction_y, fraction_x = (position - low).unbind(1)
    y0, x0 = low.long().unbind(1)
    y1, x1 = (y0 + 1).clamp_(max=height - 1), (x0 + 1).clamp_(max=width - 1)

    def corner(y: Tensor, x: Tensor) -> Tensor:
        return flat.gather(2, (y * width + x).unsqueeze(1).expand(-1, 2, -1))

    across, down = fraction_x.unsqueeze(1), fraction_y.unsqueeze(1)
    top, bottom = corner(y0, x0), corner(y1, x0)
    top = top + (corner(y0, x1) - top) * across
    bottom = bottom + (corner(y1, x1) - bottom) * across
    return top + (bottom - top) * down


@njit(cache=True, nogil=True, inline="always")
def _step(field, y, x, last_y, last_x):  # type: ignore[no-untyped-def]
    y0 = int(y)
    x0 = int(x)
    y1 = min(y0 + 1, field.shape[0] - 1)
    x1 = min(x0 + 1, field.shape[1] - 1)
    down = y - np.float32(y0)
    across = x - np.float32(x0)
    top_y = field[y0, x0, 0] + (field[y0, x1, 0] - field[y0, x0, 0]) * across
    low_y = field[y1, x0, 0] + (field[y1, x1, 0] - field[y1, x0, 0]) * across
    top_x = field[y0, x0, 1] + (field[y0, x1, 1] - field[y0, x0, 1]) * across
    low_x = field[y1, x0, 1] + (field[y1, x1, 1] - field[y1, x0, 1]) * across
    y = y + (top_y + (low_y - top_y) * down)
    x = x + (top_x + (low_x - top_x) * down)
    zero = np.float32(0)
    return min(max(y, zero), last_y), min(max(x, zero), last_x)


@njit(cache=True, nogil=True)
def _follow(field, y, x, steps):  # type: ignore[no-untyped-def]
    """Where a path from (y, x) is after `steps` steps; the reference position jumps at powers of two (Brent)."""
    last_y = np.float32(field.shape[0] - 1)
    last_x = np.float32(field.shape[1] - 1)
    kept_y, kept_x, since_kept, limit = y, x, 0, 1
    left = steps
    while left > 0:
        y, x = _step(field, y, x, last_y, last_x)
        left -= 1
        since_kept += 1
        if y == kept_y and x == kept_x:
            left %= since_kept
            kept_y = np.float32(-1)  # unreachable: the cycle is found once
        elif since_kept == limit:
            kept_y, kept_x, since_kept, limit = y, x, 0, 2 * limit
    return y, x


@njit(cache=True, nogil=True)
def _follow_all(field, steps):  # type: ignore[no-untyped-def]
    height, width, _ = field.shape
    result = np.empty((2, height, width), dtype=np.int32)
    for row in range(height):
        for column in range(width):
            y, x = _follow(field, np.float32(row), np.float32(column), steps)
            result[0, row, column] = np.int32(np.rint(y))
            result[1, row, column] = np.int32(np.rint(x))
    return result
