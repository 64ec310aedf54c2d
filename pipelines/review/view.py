"""What is shown of an object: a window of its image, scaled down where it is large, and masks on the same cells.

A window is a rectangle of image pixels. Its cells are what the page paints: pixels, or larger squares where the window
has more than `MOST_CELLS` along a side. Masks travel as counts of equal cells row by row, background first.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image

from pseudolabel.errors import InputError
from pseudolabel.masks import PixelMask

MOST_CELLS = 1024
_MARGIN = 0.4  # of the object's longer side, on every side
_LEAST_MARGIN_PX = 16


@dataclass(frozen=True, slots=True)
class Window:
    """Pixels [x0, x0 + width) x [y0, y0 + height) of an image, shown as `rows` x `columns` cells."""

    x0: int
    y0: int
    width: int
    height: int
    columns: int
    rows: int

    @classmethod
    def around(cls, box_xyxy: Sequence[float], size_hw: tuple[int, int]) -> "Window":
        """The surroundings of a box, cut to the image."""
        left, top, right, bottom = box_xyxy
        margin = max(_LEAST_MARGIN_PX, _MARGIN * max(right - left, bottom - top))
        height, width = size_hw
        x0, y0 = (int(np.clip(side - margin, 0, end - 1)) for side, end in ((left, width), (top, height)))
        x1 = int(np.clip(np.ceil(right + margin), x0 + 1, width))
        y1 = int(np.clip(np.ceil(bottom + margin), y0 + 1, height))
        scale = min(1.0, MOST_CELLS / max(x1 - x0, y1 - y0))
        return cls(x0, y0, x1 - x0, y1 - y0, max(1, round((x1 - x0) * scale)), max(1, round((y1 - y0) * scale)))

    def pixels_of(self, mask: PixelMask) -> Bool[np.ndarray, "height width"]:
        """The mask on the window's pixels; what lies outside is cut off."""
        out: Bool[np.ndarray, "height width"] = np.zeros((self.height, self.width), dtype=np.bool_)
        rows, columns = mask.pixels.shape
        top, left = max(mask.y0, self.y0), max(mask.x0, self.x0)
        bottom, right = min(mask.y0 + rows, self.y0 + self.height), min(mask.x0 + columns, self.x0 + self.width)
        if top < bottom and left < right:
            cut = mask.pixels[top - mask.y0 : bottom - mask.y0, left - mask.x0 : right - mask.x0]
            out[top - self.y0 : bottom - self.y0, left - self.x0 : right - self.x0] = cut
        return out

    def cells_of(self, mask: PixelMask) -> Bool[np.ndarray, "rows columns"]:
        """The mask on the window's cells: those of which it covers more than half."""
        pixels = self.pixels_of(mask)
        if (self.rows, self.columns) == pixels.shape:
            return pixels
        gray = Image.fromarray(pixels.astype(np.uint8) * 255).resize((self.columns, self.rows), Image.Resampling.BOX)
        return np.asarray(gray) > 127

    def edited(self, mask: PixelMask, cells: Bool[np.ndarray, "rows columns"]) -> PixelMask:
        """The mask with the cells that differ from what was shown of it; all others keep their pixels.

        What the mask has outside the window stays.
        """
        changed = cells != self.cells_of(mask)
        rows = (np.arange(self.height) * self.rows) // self.height
        columns = (np.arange(self.width) * self.columns) // self.width
        pixels = np.where(changed[np.ix_(rows, columns)], cells[np.ix_(rows, columns)], self.pixels_of(mask))
        return _pasted(mask, PixelMask(self.x0, self.y0, pixels))

    def picture(self, rgb: UInt8[np.ndarray, "H W 3"]) -> Image.Image:
        """The window's part of the image, one pixel per cell."""
        cut = Image.fromarray(rgb[self.y0 : self.y0 + self.height, self.x0 : self.x0 + self.width])
        return cut if cut.size == (self.columns, self.rows) else cut.resize((self.columns, self.rows), reducing_gap=3)


def counts_of(cells: Bool[np.ndarray, "rows columns"]) -> list[int]:
    """Lengths of runs of equal cells, row by row, background first."""
    flat = cells.ravel()
    ends = np.append(np.flatnonzero(flat[1:] != flat[:-1]) + 1, flat.size)
    counts = np.diff(ends, prepend=0).tolist()
    return [0, *counts] if flat.size and flat[0] else counts


def cells_from(counts: object, rows: int, columns: int) -> Bool[np.ndarray, "rows columns"]:
    """The inverse of `counts_of`, of untrusted counts.

    Raises:
        InputError: they are no counts of as many cells.
    """
    if not isinstance(counts, list) or not all(type(one) is int and one >= 0 for one in counts):
        raise InputError("a mask is a list of whole numbers")
    if sum(counts) != rows * columns:
        raise InputError(f"a mask's counts sum to {sum(counts)}, expected {rows} x {columns} cells")
    colours = np.arange(len(counts)) % 2 == 1
    return np.repeat(colours, counts).reshape(rows, columns)


def _pasted(mask: PixelMask, over: PixelMask) -> PixelMask:
    """The pixels of `over` in its rectangle, and around it those of `mask`."""
    boxes = [(m.x0, m.y0, m.x0 + m.pixels.shape[1], m.y0 + m.pixels.shape[0]) for m in (over, mask) if m.pixels.size]
    x0, y0 = min(box[0] for box in boxes), min(box[1] for box in boxes)
    x1, y1 = max(box[2] for box in boxes), max(box[3] for box in boxes)
    pixels = np.zeros((y1 - y0, x1 - x0), dtype=np.bool_)
    for one in (mask, over):
        rows, columns = one.pixels.shape
        pixels[one.y0 - y0 : one.y0 - y0 + rows, one.x0 - x0 : one.x0 - x0 + columns] = one.pixels
    return PixelMask(x0, y0, pixels)
