"""Pictures of masks on their images: a whole image, a part of it, or a sheet of objects.

The part that is wanted is cut out first and scaled then, so that the memory does not grow with the image; masks are
decoded one after the other, without compiled loops, which take 75 MB.
"""

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int64, UInt8
from PIL import Image, ImageDraw

from pseudolabel import rle_batch
from pseudolabel.masks import Grid, PixelMask, SoftMask, resample
from pseudolabel.rle import Rle

Rgb = UInt8[np.ndarray, "h w 3"]
Color = tuple[int, int, int]
Box = tuple[float, float, float, float]
Mask = PixelMask | Rle | SoftMask  # pixels, encoded pixels, or probabilities, of which those from 0.5 on count
Window = tuple[int, int, int, int]  # left, top, right, bottom in pixels of the image, ends exclusive

TRUTH_COLOR: Color = (255, 255, 255)
LONGEST_PX = 1600  # no picture for people is larger unless asked for
_HALF = 127  # of 255
_FILL = 0.25  # how much of a mask's colour covers the image
_SAMPLES = 4  # along a side of a square of pixels that becomes one
_GOLDEN = 0.61803398875  # steps of hue by it never come near an earlier one soon


@dataclass(frozen=True, slots=True)
class DrawnObject:
    """A mask to draw, and what stands beside it."""

    mask: Mask | None
    label: str = ""
    box_xyxy: Box | None = None
    truth: Mask | None = None

    @property
    def area_px(self) -> float:
        if self.mask is None:
            return 0
        if isinstance(self.mask, SoftMask):
            grid = self.mask.grid
            return float((self.mask.probability > _HALF).sum() * grid.stride_x * grid.stride_y)
        return (
            float(self.mask.pixels.sum()) if isinstance(self.mask, PixelMask) else rle_batch.measured_one(self.mask)[0]
        )


def overlay_picture(
    image: Rgb, objects: Sequence[DrawnObject], *, scale: float = 1, window: Window | None = None
) -> Rgb:
    """The image with every mask lightly filled and outlined in a colour of its own, boxes thin, labels above.

    Large objects are drawn first, so that they hide no small ones. The truth is outlined in white.

    Args:
        scale: pixels of the picture per pixel of the image.
        window: the part of the image that is shown; what of it lies outside the image is black.
    """
    frame = Frame.of(image, window, scale)
    canvas = frame.cut(image)
    colors = {id(drawn): color_of(place) for place, drawn in enumerate(objects)}
    ordered = sorted(objects, key=lambda drawn: -drawn.area_px)
    for drawn in ordered:
        _paint(canvas, frame, drawn, colors[id(drawn)])
    picture = Image.fromarray(canvas)
    pen = ImageDraw.Draw(picture)
    for drawn in ordered:
        _annotate(pen, frame, drawn, colors[id(drawn)])
    return np.asarray(picture)


def fitting_scale(size_hw: tuple[int, int], *, most: float = 2, longest_px: int = LONGEST_PX) -> float:
    """The scale at which a picture of that size is as large as it may be: `most`, or less for a large image."""
    return min(most, longest_px / max(size_hw))


def object_picture(image: Rgb, drawn: DrawnObject, *, side_px: int = 192, window: Window | None = None) -> Rgb:
    """One object with some surroundings, as a square of `side_px`, its label in a corner."""
    window = window or square_around(drawn)
    scale = side_px / (window[2] - window[0])
    plain = DrawnObject(drawn.mask, "", drawn.box_xyxy, drawn.truth)
    return captioned(overlay_picture(image, [plain], scale=scale, window=window), drawn.label)


def captioned(picture: Rgb, text: str) -> Rgb:
    """The picture with a line of text in its upper left corner; as it is where there is none."""
    if not text:
        return picture
    drawn = Image.fromarray(picture)
    pen = ImageDraw.Draw(drawn)
    pen.rectangle((0, 0, pen.textlength(text) + 5, 13), fill=(0, 0, 0))
    pen.text((3, 1), text, fill=(255, 255, 255))
    return np.asarray(drawn)


def contact_sheet(cells: Sequence[Rgb], *, columns: int = 6) -> Rgb:
    """Pictures of one size row by row, the last row filled up with black.

    Raises:
        ValueError: there is nothing to show.
    """
    if not cells:
        raise ValueError("no objects to show")
    filled = [*cells, *[np.zeros_like(cells[0])] * (-len(cells) % columns)]
    rows = [np.concatenate(filled[start : start + columns], axis=1) for start in range(0, len(filled), columns)]
    return np.concatenate(rows, axis=0)


def sheet_layout(count: int) -> tuple[int, int]:
    """Columns of a sheet of that many objects and the side of a cell in px, so that the sheet stays in its limits."""
    columns = max(6, int(np.ceil(np.sqrt(count))))
    return columns, min(192, LONGEST_PX // columns)


def even_places(length: int, count: int) -> list[int]:
    """At most `count` places of a list at even steps, the first and the last among them."""
    if not (length and count):
        return []
    return sorted({round(place) for place in np.linspace(0, length - 1, min(count, length))})


def color_of(place: int) -> Color:
    """A bright colour for the object at that place of a list; neighbours in the list look different."""
    red, green, blue = colorsys.hsv_to_rgb((0.02 + place * _GOLDEN) % 1.0, 0.75, 1.0)
    return (round(255 * red), round(255 * green), round(255 * blue))


def square_around(drawn: DrawnObject) -> Window:
    """A square around an object's box, else its mask: a fifth wider than it and at least 32 pixels."""
    x0, y0, x1, y1 = drawn.box_xyxy or _extent(drawn.mask)
    side = max(32, int(1.2 * max(x1 - x0, y1 - y0)) + 2)
    left, top = int((x0 + x1 - side) / 2), int((y0 + y1 - side) / 2)
    return (left, top, left + side, top + side)


def _extent(mask: Mask | None) -> Box:
    if mask is None:
        raise ValueError("neither a box nor a mask to show")
    if isinstance(mask, SoftMask):
        return mask.grid.extent_xyxy
    if isinstance(mask, PixelMask):
        return (mask.x0, mask.y0, mask.x0 + mask.pixels.shape[1], mask.y0 + mask.pixels.shape[0])
    x, y, width, height = rle_batch.measured_one(mask)[1]
    return (x, y, x + width, y + height)


@dataclass(frozen=True, slots=True)
class Frame:
    """Where the pixels of an image stand on a picture of a part of it."""

    left: int
    top: int
    size_hw: tuple[int, int]  # of the picture
    scale: float

    @classmethod
    def of(cls, image: Rgb, window: Window | None, scale: float) -> "Frame":
        x0, y0, x1, y1 = window or (0, 0, image.shape[1], image.shape[0])
        return cls(x0, y0, (max(1, round(scale * (y1 - y0))), max(1, round(scale * (x1 - x0)))), scale)

    def span(self, start: float, end: float, axis: int) -> slice:
        """The pixels of the picture whose centres lie on the image's pixels from `start` to `end`; 0 is down."""
        first = (self.top, self.left)[axis]
        low, high = (int(np.ceil(self.scale * (value - first) - 0.5)) for value in (start, end))
        return slice(*np.clip((low, high), 0, self.size_hw[axis]).tolist())

    def sources(self, span: slice, axis: int) -> Int64[np.ndarray, " n"]:
        """The pixel of the image, by row or column, that each pixel of a span of the picture lies on."""
        first = (self.top, self.left)[axis]
        return np.floor((np.arange(span.start, span.stop) + 0.5) / self.scale + 1e-9).astype(np.int64) + first

    def cut(self, image: Rgb) -> Rgb:
        """The part of the image, scaled; black outside the image."""
        canvas = np.zeros((*self.size_hw, 3), dtype=np.uint8)
        height, width = image.shape[:2]
        rows, columns = self.span(0, height, 0), self.span(0, width, 1)
        y, x = self.sources(rows, 0), self.sources(columns, 1)
        if not (len(y) and len(x)):
            return canvas
        part = Image.fromarray(_reduced(image[y[0] : y[-1] + 1, x[0] : x[-1] + 1], int(1 / self.scale + 1e-9)))
        kind = Image.Resampling.BILINEAR if self.scale < 1 else Image.Resampling.NEAREST
        canvas[rows, columns] = np.asarray(part.resize((len(x), len(y)), kind))
        return canvas

    def mask(self, mask: Mask) -> tuple[slice, slice, Bool[np.ndarray, "h w"]]:
        """Rows and columns of the picture below a mask, and the mask's pixels there."""
        if isinstance(mask, SoftMask):
            return self._soft(mask)
        x0, y0, x1, y1 = (int(value) for value in _extent(mask))
        rows, columns = self.span(y0, y1, 0), self.span(x0, x1, 1)
        y = self.sources(rows, 0).clip(y0, max(y1 - 1, y0))
        x = self.sources(columns, 1).clip(x0, max(x1 - 1, x0))
        if not isinstance(mask, PixelMask):
            return rows, columns, rle_batch.sample(mask, y, x)
        return rows, columns, mask.pixels[np.ix_(y - y0, x - x0)]

    def _soft(self, mask: SoftMask) -> tuple[slice, slice, Bool[np.ndarray, "h w"]]:
        left, top, right, bottom = mask.grid.extent_xyxy
        rows, columns = self.span(top, bottom, 0), self.span(left, right, 1)
        height, width, step = rows.stop - rows.start, columns.stop - columns.start, 1 / self.scale
        if height < 1 or width < 1:
            return rows, columns, np.zeros((max(height, 0), max(width, 0)), dtype=np.bool_)
        target = Grid(self.left + columns.start * step, self.top + rows.start * step, step, step, height, width)
        return rows, columns, resample(mask.probability.astype(np.float32), mask.grid, target) > _HALF

    def point(self, x: float, y: float) -> tuple[float, float]:
        return self.scale * (x - self.left), self.scale * (y - self.top)


def _reduced(image: Rgb, by: int) -> Rgb:
    """The image with the mean of each `by` x `by` pixels, or of 16 of them, for one; in memory of the result's size."""
    height, width = (side // max(by, 1) for side in image.shape[:2])
    if by < 2 or not (height and width):
        return np.ascontiguousarray(image)
    total = np.zeros((height, width, 3), dtype=np.uint16)
    offsets = even_places(by, _SAMPLES)
    for down in offsets:
        for across in offsets:
            total += image[down : down + height * by : by, across : across + width * by : by]
    reduced: Rgb = (total // len(offsets) ** 2).astype(np.uint8)
    return reduced


def _paint(canvas: Rgb, frame: Frame, drawn: DrawnObject, color: Color) -> None:
    for mask, own, fill in ((drawn.mask, color, _FILL), (drawn.truth, TRUTH_COLOR, 0.0)):
        if mask is not None:
            rows, columns, pixels = frame.mask(mask)
            part = canvas[rows, columns]
            if fill:
                _tint(part, pixels, own, fill)
            part[pixels & ~_eroded(pixels)] = own


def _tint(part: Rgb, pixels: Bool[np.ndarray, "h w"], color: Color, fill: float) -> None:
    """Mix a colour into the pixels, by a table of all 256 values."""
    values = np.arange(256)
    for channel, own in enumerate(color):
        table = np.round(values + fill * (own - values)).astype(np.uint8)
        plane = part[..., channel]
        plane[pixels] = table[plane[pixels]]


def _eroded(pixels: Bool[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """Pixels whose four neighbours belong to the mask too; beyond the window nothing does."""
    padded = np.pad(pixels, 1)
    eroded: Bool[np.ndarray, "h w"] = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return eroded


def _annotate(pen: ImageDraw.ImageDraw, frame: Frame, drawn: DrawnObject, color: Color) -> None:
    if drawn.box_xyxy is not None:
        (x0, y0), (x1, y1) = frame.point(*drawn.box_xyxy[:2]), frame.point(*drawn.box_xyxy[2:])
        pen.rectangle((x0, y0, max(x0, x1 - 1), max(y0, y1 - 1)), outline=color)
    if drawn.label:
        x, y = _label_corner(frame, drawn)
        left, top, right, bottom = pen.textbbox((x, y), drawn.label)
        pen.rectangle((left - 1, top - 1, right + 1, bottom + 1), fill=(0, 0, 0))
        pen.text((x, y), drawn.label, fill=color)


def _label_corner(frame: Frame, drawn: DrawnObject) -> tuple[float, float]:
    """Above the object's top left corner, or just inside where that is off the picture."""
    x, y = frame.point(*(drawn.box_xyxy or _extent(drawn.mask))[:2])
    return max(x + 1, 1), y - 12 if y >= 13 else y + 2
