"""COCO masks: a checker for untrusted ones, and a codec that works on the crop of an object.

A run-length encoding counts pixels column by column, background first; its string form packs each count, from the
fourth on as the difference to the count before the previous one, into groups of five bits (pycocotools' mask API is the
reference, and the strings written here are its strings, byte for byte).

pycocotools reads what it is given without looking: wrong counts give uninitialised memory, endless loops or signals,
one NaN in a polygon takes all memory. Nothing reaches it, or the loops below, that has not been checked here.
"""

import math
from typing import Any, TypedDict

import numpy as np
from jaxtyping import Bool, Int64, UInt8

from pseudolabel.errors import RejectError
from pseudolabel.masks import PixelMask
from pseudolabel.rle_codec import extent_of, format_counts, frame_counts, framed, paint, parse_counts

MAX_AREA_PX = 2**29 - 1  # above it, pycocotools' own string buffer is too small
MAX_PERIMETER_PX = 1_000_000  # pycocotools lays five points per pixel of a polygon's outline


class Rle(TypedDict):
    """A mask as COCO writes it: `size` is [height, width], `counts` the ASCII string."""

    size: list[int]
    counts: str


def encode_crop(mask: PixelMask, size_hw: tuple[int, int]) -> Rle:
    """The encoding of a mask on an image of `size_hw`, made from the crop alone.

    Raises:
        ValueError: the crop does not lie on the image or is not boolean, or the image has more than 2**29 - 1 px.
    """
    if mask.pixels.dtype != np.bool_:
        raise ValueError(f"expected a boolean mask, got {mask.pixels.dtype}")
    height, width = size_hw
    crop_height, crop_width = mask.pixels.shape
    on_image = 0 <= mask.x0 <= width - crop_width and 0 <= mask.y0 <= height - crop_height
    if not on_image or not 0 < height * width <= MAX_AREA_PX:
        raise ValueError(f"a crop of {mask.pixels.shape} at ({mask.x0}, {mask.y0}) is not on an image of {size_hw}")
    frame = framed(mask.pixels)
    return _from_counts(frame_counts(frame, mask.x0, mask.y0, height, width), size_hw)


def encode(mask: Bool[np.ndarray, "h w"]) -> Rle:
    """The encoding of a full-image mask."""
    return encode_crop(PixelMask(0, 0, mask), (mask.shape[0], mask.shape[1]))


def decode(rle: Rle) -> Bool[np.ndarray, "h w"]:
    """The full-image mask. Allocates what `size` claims: pass untrusted ones through `check_rle` first.

    Raises:
        RejectError: `bad_segmentation`.
    """
    crop = decode_crop(rle)
    full: Bool[np.ndarray, "h w"] = np.zeros(rle["size"], dtype=np.bool_)
    full[crop.y0 : crop.y0 + crop.pixels.shape[0], crop.x0 : crop.x0 + crop.pixels.shape[1]] = crop.pixels
    return full


def decode_crop(rle: Rle) -> PixelMask:
    """The mask cut to its exact extent; an empty mask is a crop of 0 x 0 pixels at (0, 0).

    Raises:
        RejectError: `bad_segmentation`.
    """
    counts, (height, _) = _counts_of(rle)
    extent = extent_of(counts, height)
    return PixelMask(extent[0], extent[1], _painted(counts, extent, height))


def area(rle: Rle) -> int:
    """Number of foreground pixels.

    Raises:
        RejectError: `bad_segmentation`.
    """
    return int(_counts_of(rle)[0][1::2].sum())


def bbox_xywh(rle: Rle) -> tuple[int, int, int, int]:
    """The exact extent in pixels, ends exclusive; (0, 0, 0, 0) for an empty mask.

    Raises:
        RejectError: `bad_segmentation`.
    """
    counts, (height, _) = _counts_of(rle)
    left, top, right, bottom = extent_of(counts, height)
    return (left, top, right - left, bottom - top)


def from_segmentation(segmentation: object, size_hw: tuple[int, int]) -> Rle:
    """The mask of an untrusted COCO `segmentation`, be it polygons or RLE, of an image of `size_hw`.

    Raises:
        RejectError: `bad_segmentation`; the detail says what is wrong, or that no pixel is covered.
    """
    rle = checked_segmentation(segmentation, size_hw)
    if area(rle) == 0:
        raise RejectError("bad_segmentation", "empty mask: it covers no pixel of the image")
    return rle


def checked_segmentation(segmentation: object, size_hw: tuple[int, int]) -> Rle:
    """The same where an empty mask is one, too.

    Raises:
        RejectError: `bad_segmentation`.
    """
    if isinstance(segmentation, dict):
        return check_rle(segmentation, size_hw)
    return _rasterise(check_polygons(segmentation, size_hw), size_hw)


def check_segmentation(segmentation: object, size_hw: tuple[int, int]) -> None:
    """Pass if a COCO `segmentation` can be turned into a mask safely; looks at the form, paints nothing.

    Raises:
        RejectError: `bad_segmentation`.
    """
    if isinstance(segmentation, dict):
        check_rle(segmentation, size_hw)
    else:
        check_polygons(segmentation, size_hw)


def check_rle(rle: object, size_hw: tuple[int, int]) -> Rle:
    """An untrusted RLE, compressed or not, as a trusted one; takes memory by what is there, never by what is claimed.

    Args:
        rle: anything that JSON can hold.
        size_hw: the true size of the image, which `size` has to repeat.

    Raises:
        RejectError: `bad_segmentation`.
    """
    if not isinstance(rle, dict) or "size" not in rle or "counts" not in rle:
        raise _bad("an RLE is an object with size and counts")
    size = _checked_size(rle["size"])
    if size != tuple(size_hw):
        raise _bad(f"size is {list(size)}, the image's height and width are {list(size_hw)}")
    counts = rle["counts"]
    if isinstance(counts, list):
        return _from_counts(_checked_list(counts, size[0] * size[1]), size)
    text = _ascii(counts)
    _checked_string(text, size[0] * size[1])
    return {"size": [size[0], size[1]], "counts": text.decode("ascii")}


def check_polygons(polygons: object, size_hw: tuple[int, int]) -> list[list[int | float]]:
    """Untrusted polygons as they are, once they are known to be safe to paint.

    Each is a flat list x, y, x, y, ... of at least three finite points, none further outside the image than the image
    is large; together they are at most a million pixels long.

    Raises:
        RejectError: `bad_segmentation`.
    """
    if not isinstance(polygons, list) or not polygons:
        raise _bad("polygons are a list of lists of numbers")
    perimeter = sum(_checked_perimeter(polygon, size_hw) for polygon in polygons)
    if perimeter > MAX_PERIMETER_PX:
        raise _bad(f"the outline is {perimeter:.0f} px long, at most {MAX_PERIMETER_PX} are painted")
    return polygons


def _checked_perimeter(polygon: Any, size_hw: tuple[int, int]) -> float:
    if not isinstance(polygon, list) or not set(map(type, polygon)) <= {int, float}:
        raise _bad("a polygon is a flat list of numbers")
    if len(polygon) < 6 or len(polygon) % 2:
        raise _bad(f"a polygon is x, y of at least three points, got {len(polygon)} numbers")
    low, high = min(polygon), max(polygon)
    reach = max(size_hw)
    if not (low >= -reach and high <= 2 * reach and math.isfinite(sum(polygon))):
        raise _bad("a polygon's points must be finite and near the image")
    points = np.array(polygon, dtype=np.float64).reshape(-1, 2)
    steps = np.diff(points, axis=0, append=points[:1])
    return float(np.abs(steps).sum())


def _rasterise(polygons: list[list[int | float]], size_hw: tuple[int, int]) -> Rle:
    from pycocotools import mask as coco_mask

    height, width = size_hw
    merged = coco_mask.merge(coco_mask.frPyObjects(polygons, height, width))
    return {"size": [height, width], "counts": merged["counts"].decode("ascii")}


def _checked_size(size: object) -> tuple[int, int]:
    if not isinstance(size, list | tuple) or len(size) != 2 or any(type(value) is not int for value in size):
        raise _bad("size is not [height, width] in whole numbers")
    height, width = size
    if height < 1 or width < 1 or height * width > MAX_AREA_PX:
        raise _bad(f"size must be positive and at most {MAX_AREA_PX} px in all")
    return height, width


def _checked_list(counts: list[Any], area_px: int) -> Int64[np.ndarray, "n"]:
    if not counts or set(map(type, counts)) != {int}:
        raise _bad("counts are whole numbers, at least one")
    if min(counts) < 0 or max(counts) > area_px or len(counts) > area_px + 1 or sum(counts) != area_px:
        raise _bad(f"counts must be positive and sum to the image's {area_px} px")
    return np.array(counts, dtype=np.int64)


def _checked_string(text: bytes, area_px: int) -> Int64[np.ndarray, "n"]:
    counts: Int64[np.ndarray, n]
    counts, problem = parse_counts(np.frombuffer(text, dtype=np.uint8), area_px)
    if problem:
        raise _bad(_PROBLEMS[problem].format(area=area_px))
    return counts


_PROBLEMS = {
    1: "counts hold a character that is none of COCO's 64",
    2: "counts end within a number",
    3: "a count is negative or exceeds the image's {area} px",
    4: "there are more counts than pixels",
    5: "counts do not sum to the image's {area} px",
}


def _ascii(counts: object) -> bytes:
    if isinstance(counts, bytes):
        return counts
    if not isinstance(counts, str) or not counts.isascii():
        raise _bad("counts are neither an ASCII string nor a list of whole numbers")
    return counts.encode("ascii")


def _counts_of(rle: Rle) -> tuple[Int64[np.ndarray, "n"], tuple[int, int]]:
    size = _checked_size(rle["size"])
    return _checked_string(_ascii(rle["counts"]), size[0] * size[1]), size


def _from_counts(counts: Int64[np.ndarray, "n"], size_hw: tuple[int, int]) -> Rle:
    return {"size": [size_hw[0], size_hw[1]], "counts": format_counts(counts).tobytes().decode("ascii")}


def _painted(
    counts: Int64[np.ndarray, "n"], extent_xyxy: tuple[int, int, int, int], height: int
) -> Bool[np.ndarray, "crop_h crop_w"]:
    left, top, right, bottom = extent_xyxy
    pixels: UInt8[np.ndarray, "crop_h crop_w"] = np.zeros((bottom - top, right - left), dtype=np.uint8)
    paint(counts, height, left, top, pixels)
    return pixels.view(np.bool_)


def _bad(detail: str) -> RejectError:
    return RejectError("bad_segmentation", detail)
