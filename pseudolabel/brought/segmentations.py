"""COCO's `segmentation`, polygons or RLE, as a mask."""

from typing import Any

from pseudolabel.brought.base import Mask, Painter
from pseudolabel.errors import InputError, RejectError
from pseudolabel.rle import checked_segmentation, decode_crop


def painter_of(where: str, segmentation: Any) -> Painter:
    """Checks the segmentation against its image, and paints it; one that covers no pixel is an empty mask."""

    def paint(size_hw: tuple[int, int]) -> Mask:
        try:
            return decode_crop(checked_segmentation(segmentation, size_hw))
        except RejectError as reject:
            raise InputError(f"{where}, segmentation: {reject.detail}") from None

    return paint
