"""Soft masks cut to their object: a small grid of probabilities somewhere on the image.

**The grid convention, used everywhere.** Image coordinates are continuous: pixel column `i` covers [i, i + 1), so an
image of width W spans [0, W]. A mask's cell (row r, column c) covers the rectangle
`[x0 + c * stride_x, x0 + (c + 1) * stride_x) x [y0 + r * stride_y, y0 + (r + 1) * stride_y)` and its probability
belongs to that rectangle's centre. Between centres the mask is bilinear, beyond the outermost centres it is constant,
and outside its rectangle it is zero. Strides may be fractions (a 512-pixel crop resized to 96 cells) and less than one.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, UInt8

MOST_CELLS = 128  # along a side of a mask that is cut to its box


@dataclass(frozen=True, slots=True)
class Grid:
    """Where a rectangle of cells lies on the image; see the module's convention."""

    x0: float
    y0: float
    stride_x: float
    stride_y: float
    height: int
    width: int

    def __post_init__(self) -> None:
        if self.height < 1 or self.width < 1:
            raise ValueError(f"a grid needs at least one cell, got {self.height} x {self.width}")
        if not (self.stride_x > 0 and self.stride_y > 0):
            raise ValueError(f"strides must be positive, got {self.stride_x} and {self.stride_y}")

    @property
    def extent_xyxy(self) -> tuple[float, float, float, float]:
        """The covered rectangle in image coordinates, ends exclusive."""
        right = self.x0 + self.width * self.stride_x
        bottom = self.y0 + self.height * self.stride_y
        return (self.x0, self.y0, right, bottom)


@dataclass(frozen=True, slots=True)
class SoftMask:
    """Foreground probability of one object on a grid, 255 being certain."""

    grid: Grid
    probability: UInt8[np.ndarray, "h w"]

    def __post_init__(self) -> None:
        if self.probability.shape != (self.grid.height, self.grid.width):
            raise ValueError(f"expected {(self.grid.height, self.grid.width)} cells, got {self.probability.shape}")


@dataclass(frozen=True, slots=True)
class PixelMask:
    """A binary mask at the image's own resolution, cut to a window whose top-left pixel is (x0, y0)."""

    x0: int
    y0: int
    pixels: Bool[np.ndarray, "h w"]


def pixel_window(box_xyxy: tuple[float, float, float, float], size_hw: tuple[int, int]) -> Grid:
    """The stride-1 grid of all pixels that a box touches, clipped to the image, at least one pixel large."""
    height, width = size_hw
    x0 = int(np.clip(np.floor(box_xyxy[0]), 0, width - 1))
    y0 = int(np.clip(np.floor(box_xyxy[1]), 0, height - 1))
    x1 = int(np.clip(np.ceil(box_xyxy[2]), x0 + 1, width))
    y1 = int(np.clip(np.ceil(box_xyxy[3]), y0 + 1, height))
    return Grid(float(x0), float(y0), 1.0, 1.0, y1 - y0, x1 - x0)


def box_cells(box_xyxy: tuple[float, float, float, float], size_hw: tuple[int, int]) -> Grid:
    """Equal cells over the pixels that a box touches, one per pixel and at most 128 along a side."""
    pixels = pixel_window(box_xyxy, size_hw)
    height, width = min(pixels.height, MOST_CELLS), min(pixels.width, MOST_CELLS)
    return Grid(pixels.x0, pixels.y0, pixels.width / width, pixels.height / height, height, width)


def resample(
    probability: Float32[np.ndarray, "h w"], source: Grid, target: Grid
) -> Float32[np.ndarray, "target_h target_w"]:
    """`probability` on `source` read bilinearly at the centres of `target`'s cells, zero outside `source`."""
    return resample_above(probability, source, target, 1.0)[0]


def resample_above(
    probability: Float32[np.ndarray, "h w"], source: Grid, target: Grid, threshold: float
) -> tuple[Float32[np.ndarray, "target_h target_w"], float]:
    """`resample`, and the mean of the values above the threshold (0 if there is none)."""
    from pseudolabel import bilinear  # numba, which a stage's import does without

    out = np.empty((target.height, target.width), dtype=np.float32)
    column = (target.x0 + 0.5 * target.stride_x - source.x0) / source.stride_x
    row = (target.y0 + 0.5 * target.stride_y - source.y0) / source.stride_y
    step_x, step_y = target.stride_x / source.stride_x, target.stride_y / source.stride_y
    cells = np.ascontiguousarray(probability)
    total, count = bilinear.read(cells, column, step_x, row, step_y, np.float32(threshold), out)
    return out, total / max(count, 1)
