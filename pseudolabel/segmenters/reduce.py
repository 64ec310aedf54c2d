"""Logits on a coarse grid to label and confidence at image size, without a full-size volume of all classes.

The result is that of the plain form, "upsample all logits bilinearly, softmax over classes, maximum": the label is the
class with the largest upsampled logit (the lowest index at a tie) and the confidence is the softmax of the upsampled
logits at that class. What makes it cheap: between four neighbouring grid points every upsampled logit is a convex
combination of its four values there, so a class that lies below another one by at least a margin at all four corners
lies below it everywhere between them. The CPU loop drops such classes per cell; with the margin that it uses, all
classes dropped together would change a probability by less than a quarter of a uint8 step, and no label.
"""

import math
from typing import Any

import numba
import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float32

from pseudolabel.segmenters.base import SemanticResult

MAX_CLASSES = 255
_DROPPED_MASS = 1 / 1024
_CLASSES_AT_ONCE = 4
_FAST = {"contract", "reassoc", "nsz"}


def reduce_logits(
    logits: Float32[torch.Tensor, "c h w"], size_hw: tuple[int, int], *, align_corners: bool
) -> SemanticResult:
    """Label and confidence at image size; on the device where the logits are, then copied to the host.

    Args:
        logits: finite, on the network's own grid.
        size_hw: the image's height and width.
        align_corners: how the grid maps to the image, as in `torch.nn.functional.interpolate`.

    Raises:
        ValueError: more than 255 classes, which a uint8 label map cannot hold.
    """
    if logits.shape[0] > MAX_CLASSES:
        raise ValueError(f"at most {MAX_CLASSES} classes fit into a label map, got {logits.shape[0]}")
    if logits.device.type == "cpu":
        return _reduce_on_cpu(logits.numpy(), size_hw, align_corners)
    return _reduce_on_device(logits, size_hw, align_corners)


def _reduce_on_device(
    logits: Float32[torch.Tensor, "c h w"], size_hw: tuple[int, int], align_corners: bool
) -> SemanticResult:
    """A few classes at a time: a running maximum, its index, and a running sum of exponentials relative to it."""
    best = logits.new_full(size_hw, -math.inf)
    total = logits.new_zeros(size_hw)
    label = torch.zeros(size_hw, dtype=torch.uint8, device=logits.device)
    for first in range(0, logits.shape[0], _CLASSES_AT_ONCE):
        chunk = logits[None, first : first + _CLASSES_AT_ONCE]
        upsampled = F.interpolate(chunk, size_hw, mode="bilinear", align_corners=align_corners)[0]
        top, index = upsampled.max(dim=0)
        label = torch.where(top > best, (index + first).to(torch.uint8), label)
        new_best = torch.maximum(best, top)
        total = total * torch.exp(best - new_best) + torch.exp(upsampled - new_best).sum(dim=0)
        best = new_best
    confidence = (255 / total).round().to(torch.uint8)
    return SemanticResult(label.cpu().numpy(), confidence.cpu().numpy())


def _reduce_on_cpu(logits: Float32[np.ndarray, "c h w"], size_hw: tuple[int, int], align: bool) -> SemanticResult:
    classes, height, width = logits.shape
    cells = np.ascontiguousarray(logits.transpose(1, 2, 0))
    row_low, row_part = _source_positions(size_hw[0], height, align)
    column_low, column_part = _source_positions(size_hw[1], width, align)
    label = np.empty(size_hw, dtype=np.uint8)
    confidence = np.empty(size_hw, dtype=np.uint8)
    margin = np.float32(math.log(max(classes - 1, 1) / _DROPPED_MASS))
    rows = (row_low, row_part, _first_of_each_cell(row_low))
    columns = (column_low, column_part, _first_of_each_cell(column_low))
    _reduce_cells(cells, *rows, *columns, margin, label, confidence)
    return SemanticResult(label, confidence)


def _source_positions(
    target: int, source: int, align_corners: bool
) -> tuple[np.ndarray, Float32[np.ndarray, " target"]]:
    """Index of the lower grid point of every pixel along one axis, and the fraction of the way to the next."""
    pixels = np.arange(target, dtype=np.float32)
    if align_corners:
        scale = np.float32((source - 1) / (target - 1)) if target > 1 else np.float32(0)
        position = pixels * scale
    else:
        position = np.maximum((pixels + np.float32(0.5)) * np.float32(source / target) - np.float32(0.5), 0)
    low = np.minimum(position.astype(np.int64), source - 1)
    return low, np.clip(position - low, 0, 1).astype(np.float32)


def _first_of_each_cell(low: np.ndarray) -> np.ndarray:
    """Where along an axis the lower grid point changes, with the axis's length at the end."""
    changes = np.flatnonzero(np.diff(low)) + 1
    return np.concatenate([[0], changes, [low.size]])


@numba.njit(cache=True, nogil=True, fastmath=_FAST, inline="always")  # type: ignore[untyped-decorator]
def _exp(value: Any) -> Any:  # pragma: no cover
    """exp of a value <= 0 by plain arithmetic, which vectorises: (Taylor polynomial at value / 16) to the power of 16.

    The absolute error is below 1e-6; below -20 the result is exp(-20).
    """
    u = max(value, np.float32(-20)) * np.float32(1 / 16)
    p = np.float32(1 / 40320)
    p = p * u + np.float32(1 / 5040)
    p = p * u + np.float32(1 / 720)
    p = p * u + np.float32(1 / 120)
    p = p * u + np.float32(1 / 24)
    p = p * u + np.float32(1 / 6)
    p = p * u + np.float32(1 / 2)
    p = p * u + np.float32(1)
    p = p * u + np.float32(1)
    p *= p
    p *= p
    p *= p
    return p * p


@numba.njit(cache=True, nogil=True, fastmath=_FAST)  # type: ignore[untyped-decorator]
def _reduce_cells(  # pragma: no cover
    cells: np.ndarray,
    row_low: np.ndarray,
    row_part: np.ndarray,
    row_starts: np.ndarray,
    column_low: np.ndarray,
    column_part: np.ndarray,
    column_starts: np.ndarray,
    margin: float,
    label: np.ndarray,
    confidence: np.ndarray,
) -> None:
    height, width, classes = cells.shape
    kept = np.empty(classes, dtype=np.int64)
    corners = np.empty((4, classes), dtype=np.float32)
    widest = np.max(np.diff(column_starts))
    best = np.empty(widest, dtype=np.float32)
    total = np.empty(widest, dtype=np.float32)
    winner = np.empty(widest, dtype=np.int32)
    for i in range(row_starts.size - 1):
        top_row = row_low[row_starts[i]]
        bottom_row = min(top_row + 1, height - 1)
        for j in range(column_starts.size - 1):
            left_column = column_low[column_starts[j]]
            right_column = min(left_column + 1, width - 1)
            a = cells[top_row, left_column]
            b = cells[top_row, right_column]
            c = cells[bottom_row, left_column]
            d = cells[bottom_row, right_column]
            # the class whose smallest corner is largest is the one to beat
            strongest = 0
            floor = np.float32(-np.inf)
            for k in range(classes):
                low = min(min(a[k], b[k]), min(c[k], d[k]))
                if low > floor:
                    floor = low
                    strongest = k
            n = 0
            for k in range(classes):
                beaten = (
                    a[k] + margin <= a[strongest]
                    and b[k] + margin <= b[strongest]
                    and c[k] + margin <= c[strongest]
                    and d[k] + margin <= d[strongest]
                )
                if not beaten:
                    kept[n] = k
                    corners[0, n] = a[k]
                    corners[1, n] = b[k]
                    corners[2, n] = c[k]
                    corners[3, n] = d[k]
                    n += 1
            first, last = column_starts[j], column_starts[j + 1]
            for y in range(row_starts[i], row_starts[i + 1]):
                _reduce_segment(
                    corners[:, :n], kept[:n], row_part[y], column_part[first:last], label[y, first:last],
                    confidence[y, first:last], best, total, winner,
                )  # fmt: skip


@numba.njit(cache=True, nogil=True, fastmath=_FAST, inline="always")  # type: ignore[untyped-decorator]
def _reduce_segment(  # pragma: no cover
    corners: np.ndarray,
    kept: np.ndarray,
    down: float,
    parts: np.ndarray,
    label: np.ndarray,
    confidence: np.ndarray,
    best: np.ndarray,
    total: np.ndarray,
    winner: np.ndarray,
) -> None:
    """One row of pixels of one cell; every inner loop runs over pixels, so that it becomes vector instructions."""
    width = parts.size
    one = np.float32(1)
    up = one - down
    for x in range(width):
        best[x] = np.float32(-np.inf)
        total[x] = np.float32(0)
        winner[x] = 0
    for m in range(kept.size):
        left = up * corners[0, m] + down * corners[2, m]
        step = up * corners[1, m] + down * corners[3, m] - left
        for x in range(width):
            value = left + parts[x] * step
            wins = value > best[x]
            best[x] = value if wins else best[x]
            winner[x] = m if wins else winner[x]
    for m in range(kept.size):
        left = up * corners[0, m] + down * corners[2, m]
        step = up * corners[1, m] + down * corners[3, m] - left
        for x in range(width):
            total[x] += _exp(left + parts[x] * step - best[x])
    for x in range(width):
        label[x] = kept[winner[x]]
        confidence[x] = np.uint8(np.float32(255) / total[x] + np.float32(0.5))
