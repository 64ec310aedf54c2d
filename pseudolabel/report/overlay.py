"""Pictures of masks on their images: one image with all its objects, or a sheet of objects in order of their score."""

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image, ImageDraw

from pseudolabel.masks import PixelMask

Rgb = UInt8[np.ndarray, "h w 3"]
Color = tuple[int, int, int]
Box = tuple[float, float, float, float]

TRUTH_COLOR: Color = (255, 255, 255)
_FILL = 0.45  # how much of a mask's colour covers the image
_GOLDEN = 0.61803398875  # steps of hue by it never come near an earlier one soon


@dataclass(frozen=True, slots=True)
class DrawnObject:
    """A mask to draw, and what stands beside it."""

    mask: PixelMask
    label: str = ""
    box_xyxy: Box | None = None
    truth: PixelMask | None = None


@dataclass(frozen=True, slots=True)
class SheetEntry:
    """One object of a contact sheet, on its image."""

    image: Rgb
    drawn: DrawnObject
    score: float


def overlay_picture(image: Rgb, objects: Sequence[DrawnObject], *, scale: int = 1) -> Rgb:
    """The image with every mask tinted and outlined in a colour of its own, boxes thin, labels above, truth white.

    Args:
        scale: each pixel of the image becomes `scale` x `scale`, so that outlines are finer than pixels.
    """
    canvas = np.repeat(np.repeat(image, scale, 0), scale, 1).astype(np.float32)
    for place, drawn in enumerate(objects):
        _tint(canvas, drawn.mask, color_of(place), scale)
    for place, drawn in enumerate(objects):
        if drawn.truth is not None:
            _outline(canvas, drawn.truth, TRUTH_COLOR, scale)
        _outline(canvas, drawn.mask, color_of(place), scale)
    picture = Image.fromarray(np.round(canvas).astype(np.uint8))
    pen = ImageDraw.Draw(picture)
    for place, drawn in enumerate(objects):
        _annotate(pen, drawn, color_of(place), scale)
    return np.asarray(picture)


def contact_sheet(entries: Sequence[SheetEntry], *, columns: int = 6, cell_px: int = 192) -> Rgb:
    """Objects from the worst to the best score, each cut out with some surroundings, row by row.

    Raises:
        ValueError: there is nothing to show.
    """
    if not entries:
        raise ValueError("no objects to show")
    ranked = sorted(entries, key=lambda entry: entry.score)
    cells = [_cell(entry, cell_px) for entry in ranked]
    blank = np.zeros((cell_px, cell_px, 3), dtype=np.uint8)
    cells += [blank] * (-len(cells) % columns)
    rows = [np.concatenate(cells[start : start + columns], axis=1) for start in range(0, len(cells), columns)]
    return np.concatenate(rows, axis=0)


def even_places(length: int, count: int) -> list[int]:
    """At most `count` places of a list at even steps, the first and the last among them."""
    if not (length and count):
        return []
    return sorted({round(place) for place in np.linspace(0, length - 1, min(count, length))})


def color_of(place: int) -> Color:
    """A bright colour for the object at that place of a list; neighbours in the list look different."""
    red, green, blue = colorsys.hsv_to_rgb((0.02 + place * _GOLDEN) % 1.0, 0.75, 1.0)
    return (round(255 * red), round(255 * green), round(255 * blue))


def _tint(canvas: np.ndarray, mask: PixelMask, color: Color, scale: int) -> None:
    part, pixels = _under(canvas, mask, scale)
    part[pixels] += _FILL * (np.array(color, dtype=np.float32) - part[pixels])


def _outline(canvas: np.ndarray, mask: PixelMask, color: Color, scale: int) -> None:
    part, pixels = _under(canvas, mask, scale)
    part[pixels & ~_eroded(pixels)] = color


def _under(canvas: np.ndarray, mask: PixelMask, scale: int) -> tuple[np.ndarray, Bool[np.ndarray, "h w"]]:
    """The part of the canvas below a mask, and the mask's pixels there."""
    height, width = mask.pixels.shape
    rows = slice(scale * mask.y0, scale * (mask.y0 + height))
    columns = slice(scale * mask.x0, scale * (mask.x0 + width))
    return canvas[rows, columns], np.repeat(np.repeat(mask.pixels, scale, 0), scale, 1)


def _eroded(pixels: Bool[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """Pixels whose four neighbours belong to the mask too; beyond the window nothing does."""
    padded = np.pad(pixels, 1)
    eroded: Bool[np.ndarray, "h w"] = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return eroded


def _annotate(pen: ImageDraw.ImageDraw, drawn: DrawnObject, color: Color, scale: int) -> None:
    if drawn.box_xyxy is not None:
        x0, y0, x1, y1 = (scale * value for value in drawn.box_xyxy)
        pen.rectangle((x0, y0, x1 - 1, y1 - 1), outline=color)
    if drawn.label:
        x, y = _label_corner(drawn, scale)
        left, top, right, bottom = pen.textbbox((x, y), drawn.label)
        pen.rectangle((left - 1, top - 1, right + 1, bottom + 1), fill=(0, 0, 0))
        pen.text((x, y), drawn.label, fill=color)


def _label_corner(drawn: DrawnObject, scale: int) -> tuple[float, float]:
    """Above the object's top left corner, or just inside where that is off the picture."""
    x, y = drawn.box_xyxy[:2] if drawn.box_xyxy else (drawn.mask.x0, drawn.mask.y0)
    above = scale * y - 12
    return max(scale * x + 1, 1), above if above >= 1 else scale * y + 2


def _cell(entry: SheetEntry, cell_px: int) -> Rgb:
    """The object in the middle of a square, enlarged to fill the cell, with its score and label in a corner."""
    x0, y0, side = _square(entry)
    plain = DrawnObject(entry.drawn.mask, "", entry.drawn.box_xyxy, entry.drawn.truth)
    scale = max(1, cell_px // side)
    whole = overlay_picture(entry.image, [plain], scale=scale)
    cut = Image.fromarray(whole).crop((scale * x0, scale * y0, scale * (x0 + side), scale * (y0 + side)))
    cell = cut.resize((cell_px, cell_px), Image.Resampling.BILINEAR)
    pen = ImageDraw.Draw(cell)
    text = f"{entry.score:.2f} {entry.drawn.label}".rstrip()
    pen.rectangle((0, 0, pen.textlength(text) + 5, 13), fill=(0, 0, 0))
    pen.text((3, 1), text, fill=(255, 255, 255))
    return np.asarray(cell)


def _square(entry: SheetEntry) -> tuple[int, int, int]:
    """Left, top and side of a square around the object, a fifth wider than it and at least 32 pixels."""
    box = entry.drawn.box_xyxy
    if box is None:
        mask = entry.drawn.mask
        height, width = mask.pixels.shape
        box = (mask.x0, mask.y0, mask.x0 + width, mask.y0 + height)
    side = max(32, int(1.2 * max(box[2] - box[0], box[3] - box[1])) + 2)
    return int((box[0] + box[2] - side) / 2), int((box[1] + box[3] - side) / 2), side
