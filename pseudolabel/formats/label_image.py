"""Masks of one image as one picture of numbers, for formats in which a pixel belongs to one object."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Integer, UInt32
from scipy import ndimage

from pseudolabel import rle
from pseudolabel.formats.profile import ExportImage, ExportObject
from pseudolabel.masks import PixelMask

OVERLAPS = "pixels of a mask that a smaller one covers"


def instance_numbers(objects: Sequence[ExportObject], size_hw: tuple[int, int]) -> UInt32[np.ndarray, "h w"]:
    """The number of the object at each pixel, from 1 in their order, 0 for none.

    Of several objects the smallest has the pixel, and a crowd none that others have.
    """
    crops = [(number, one, rle.decode_crop(one.mask)) for number, one in enumerate(objects, 1) if one.mask is not None]
    numbers: UInt32[np.ndarray, "h w"] = np.zeros(size_hw, dtype=np.uint32)
    for number, _, crop in sorted(crops, key=lambda row: (not row[1].is_crowd, -int(row[2].pixels.sum()), row[0])):
        height, width = crop.pixels.shape
        numbers[crop.y0 : crop.y0 + height, crop.x0 : crop.x0 + width][crop.pixels] = number
    return numbers


def masks_of_numbers(
    numbers: Integer[np.ndarray, "h w"], drawn: Sequence[ExportObject], image: ExportImage
) -> list[rle.Rle | None]:
    """The mask of each of the image's objects, of which `drawn` were numbered from 1; None of one without a pixel."""
    found = dict(zip((one.id for one in drawn), numbered_masks(numbers, len(drawn)), strict=True))
    return [found.get(one.id) for one in image.objects]


def numbered_masks(numbers: Integer[np.ndarray, "h w"], count: int) -> list[rle.Rle | None]:
    """The masks of the numbers from 1 to `count`; None of one without a pixel."""
    size_hw = (numbers.shape[0], numbers.shape[1])
    windows = ndimage.find_objects(numbers.astype(np.int32), max_label=count) if count else []
    masks: list[rle.Rle | None] = []
    for number, window in enumerate(windows, 1):
        crop = window and PixelMask(window[1].start, window[0].start, numbers[window] == number)
        masks.append(rle.encode_crop(crop, size_hw) if crop else None)
    return masks
