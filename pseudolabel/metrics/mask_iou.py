"""Mask IoU of every true object with the mask that was predicted for it."""

from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Float64
from pycocotools import mask as codec

from pseudolabel.fusion.grid import object_window
from pseudolabel.masks import PixelMask
from pseudolabel.metrics.objects import Box, Prediction, TrueObject
from pseudolabel.rle import Rle, encode_crop

SMALL_PX, LARGE_PX = 32**2, 96**2  # COCO's limits between small, medium and large


def rle_iou(first: Rle, second: Rle) -> float:
    """Intersection over union of two checked masks of one image; 0 where both are empty."""
    return float(codec.iou([first], [second], [0])[0, 0])


def box_mask(box_xywh: Box, size_hw: tuple[int, int]) -> Rle:
    """The box as a mask, as `fuse` writes it: the pixels whose centres lie in it, at least one."""
    x, y, width, height = box_xywh
    window = object_window((x, y, x + width, y + height), size_hw)
    pixels = np.ones((window.height, window.width), dtype=bool)
    return encode_crop(PixelMask(int(window.x0), int(window.y0), pixels), size_hw)


def ellipse_mask(box_xywh: Box, size_hw: tuple[int, int]) -> Rle:
    """The ellipse that touches the box's four sides as a mask: the pixels whose centres lie in it; may be empty."""
    x, y, width, height = box_xywh
    window = object_window((x, y, x + width, y + height), size_hw)
    rows = (window.y0 + np.arange(window.height) + 0.5 - (y + height / 2)) / (height / 2)
    columns = (window.x0 + np.arange(window.width) + 0.5 - (x + width / 2)) / (width / 2)
    pixels = rows[:, None] ** 2 + columns[None, :] ** 2 <= 1
    return encode_crop(PixelMask(int(window.x0), int(window.y0), pixels), size_hw)


def object_ious(objects: Sequence[TrueObject], predictions: Iterable[Prediction]) -> Float64[np.ndarray, " n"]:
    """IoU of every object with the prediction of its annotation id and image, 0 where there is none."""
    by_id = {(row.image_id, row.annotation_id): row.mask for row in predictions}
    masks = [by_id.get((row.image_id, row.annotation_id)) for row in objects]
    pairs = zip(objects, masks, strict=True)
    return np.array([0.0 if mask is None else rle_iou(row.mask, mask) for row, mask in pairs], dtype=np.float64)


def size_name(area_px: float) -> str:
    """COCO's word for the size of an object of that true area."""
    return "small" if area_px < SMALL_PX else "medium" if area_px < LARGE_PX else "large"
