"""A brought mask as a candidate's: cut to its box on at most 128 cells a side, and its extent before that."""

import numpy as np
from jaxtyping import Float32
from PIL import Image

from pseudolabel.brought.base import BoxXyxy, FullMask, Mask
from pseudolabel.masks import Grid, PixelMask, SoftMask, box_cells, pixel_window

_FOREGROUND = 128  # the smallest byte of a probability above one half


def extent_xyxy(mask: Mask) -> BoxXyxy | None:
    """The tight box of what is foreground, in whole pixels or cells; None where nothing is."""
    grid, inside = _grid(mask), _inside(mask)
    columns, rows = np.flatnonzero(inside.any(axis=0)), np.flatnonzero(inside.any(axis=1))
    if not columns.size:
        return None
    return (
        grid.x0 + float(columns[0]) * grid.stride_x,
        grid.y0 + float(rows[0]) * grid.stride_y,
        grid.x0 + float(columns[-1] + 1) * grid.stride_x,
        grid.y0 + float(rows[-1] + 1) * grid.stride_y,
    )


def cut_to_box(mask: Mask, box_xyxy: BoxXyxy, size_hw: tuple[int, int]) -> SoftMask:
    """The part in the box; a mask that is on cells already stays on its own."""
    if isinstance(mask, SoftMask):
        return mask
    target, window = box_cells(box_xyxy, size_hw), pixel_window(box_xyxy, size_hw)
    pixels = _window_of(mask, int(window.x0), int(window.y0), window.height, window.width)
    if (target.height, target.width) != pixels.shape:
        image = Image.fromarray(pixels, mode="F")
        pixels = np.array(image.resize((target.width, target.height), Image.Resampling.BOX), dtype=np.float32)
    return SoftMask(target, np.rint(np.clip(pixels, 0, 1) * 255).astype(np.uint8))


def is_empty(mask: SoftMask) -> bool:
    """Whether no cell is foreground."""
    return not (mask.probability >= _FOREGROUND).any()


def _window_of(mask: PixelMask | FullMask, x0: int, y0: int, height: int, width: int) -> Float32[np.ndarray, "h w"]:
    own = _values(mask)
    window = np.zeros((height, width), dtype=np.float32)
    left, top = max(x0, mask.x0), max(y0, mask.y0)
    right, bottom = min(x0 + width, mask.x0 + own.shape[1]), min(y0 + height, mask.y0 + own.shape[0])
    if left < right and top < bottom:
        part = own[top - mask.y0 : bottom - mask.y0, left - mask.x0 : right - mask.x0]
        window[top - y0 : bottom - y0, left - x0 : right - x0] = part
    return window


def _values(mask: PixelMask | FullMask) -> Float32[np.ndarray, "h w"]:
    return mask.pixels.astype(np.float32) if isinstance(mask, PixelMask) else mask.probability


def _grid(mask: Mask) -> Grid:
    if isinstance(mask, SoftMask):
        return mask.grid
    height, width = _values(mask).shape
    return Grid(float(mask.x0), float(mask.y0), 1.0, 1.0, max(height, 1), max(width, 1))


def _inside(mask: Mask) -> np.ndarray:
    if isinstance(mask, SoftMask):
        return np.asarray(mask.probability >= _FOREGROUND)
    return np.asarray(_values(mask) > 0.5)
