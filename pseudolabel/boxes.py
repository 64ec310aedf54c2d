"""Boxes: conventions in the names, IoU, and the check of one untrusted box.

`xyxy` is left, top, right, bottom with exclusive ends; `xywh` is COCO's left, top, width, height; `cxcywh` is centre
and size. All are in continuous image coordinates, see `pseudolabel.masks`.
"""

import math

import numpy as np
from jaxtyping import Bool, Float

from pseudolabel.errors import RejectError

_PLAIN = 1e9


def xywh_to_xyxy(boxes_xywh: Float[np.ndarray, "*n 4"]) -> Float[np.ndarray, "*n 4"]:
    """The same boxes by their corners."""
    return np.concatenate([boxes_xywh[..., :2], boxes_xywh[..., :2] + boxes_xywh[..., 2:]], axis=-1)


def xyxy_to_xywh(boxes_xyxy: Float[np.ndarray, "*n 4"]) -> Float[np.ndarray, "*n 4"]:
    """The same boxes by their top-left corner and size."""
    return np.concatenate([boxes_xyxy[..., :2], boxes_xyxy[..., 2:] - boxes_xyxy[..., :2]], axis=-1)


def cxcywh_to_xywh(boxes_cxcywh: Float[np.ndarray, "*n 4"]) -> Float[np.ndarray, "*n 4"]:
    """The same boxes by their top-left corner and size."""
    return np.concatenate([boxes_cxcywh[..., :2] - boxes_cxcywh[..., 2:] / 2, boxes_cxcywh[..., 2:]], axis=-1)


def clip_xyxy(boxes_xyxy: Float[np.ndarray, "*n 4"], size_hw: tuple[int, int]) -> Float[np.ndarray, "*n 4"]:
    """The part of every box that lies on an image; a box beside it becomes one without area on its border."""
    height, width = size_hw
    limits = np.array([width, height, width, height], dtype=boxes_xyxy.dtype)
    clipped: Float[np.ndarray, "*n 4"] = np.clip(boxes_xyxy, 0, limits)
    return clipped


def area_xyxy(boxes_xyxy: Float[np.ndarray, "*n 4"]) -> Float[np.ndarray, "*n"]:
    """Areas in px; an inverted box has none."""
    sides = np.maximum(boxes_xyxy[..., 2:] - boxes_xyxy[..., :2], 0)
    area: Float[np.ndarray, "*n"] = sides[..., 0] * sides[..., 1]
    return area


def paired_iou(
    first_xyxy: Float[np.ndarray, "*#n 4"], second_xyxy: Float[np.ndarray, "*#n 4"]
) -> Float[np.ndarray, "*#n"]:
    """IoU of each box with the one at its place, 0 where both have no area; shapes are broadcast."""
    left_top = np.maximum(first_xyxy[..., :2], second_xyxy[..., :2])
    right_bottom = np.minimum(first_xyxy[..., 2:], second_xyxy[..., 2:])
    shared = area_xyxy(np.concatenate([left_top, right_bottom], axis=-1))
    union = area_xyxy(first_xyxy) + area_xyxy(second_xyxy) - shared
    iou: Float[np.ndarray, "*#n"] = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
    return iou


def iou_matrix(first_xyxy: Float[np.ndarray, "n 4"], second_xyxy: Float[np.ndarray, "m 4"]) -> Float[np.ndarray, "n m"]:
    """IoU of every pair, 0 where both boxes have no area."""
    return paired_iou(first_xyxy[:, None], second_xyxy[None, :])


def overlapped(boxes_xyxy: Float[np.ndarray, "n 4"]) -> Bool[np.ndarray, " n"]:
    """Which boxes of an image share area with another one."""
    low, high = boxes_xyxy[:, :2], boxes_xyxy[:, 2:]
    left, top = (low[:, None, axis] < high[None, :, axis] for axis in (0, 1))
    share = left & left.T & top & top.T
    np.fill_diagonal(share, False)
    some: Bool[np.ndarray, " n"] = np.logical_or.reduce(share, axis=1)
    return some


def check_xywh(box_xywh: object) -> tuple[float, float, float, float]:
    """An untrusted value as four finite floats with a positive size.

    Raises:
        RejectError: `bad_box` where it is no list of four finite numbers or a side is negative, `empty_box` where a
            side is zero.
    """
    if type(box_xywh) is list and len(box_xywh) == 4:  # nearly all are plain, and told so in a tenth of the time
        x, y, width, height = box_xywh
        plain = type(x) is type(y) is type(width) is type(height) is float
        if plain and -_PLAIN < x < _PLAIN and -_PLAIN < y < _PLAIN and 1 < width < _PLAIN and 1 < height < _PLAIN:
            return (x, y, width, height)
    if not isinstance(box_xywh, list | tuple) or len(box_xywh) != 4:
        raise RejectError("bad_box", f"expected [x, y, width, height], got {_short(box_xywh)}")
    if not all(_is_number(value) for value in box_xywh):
        raise RejectError("bad_box", f"expected four numbers, got {_short(box_xywh)}")
    x, y, width, height = (_finite(value) for value in box_xywh)
    if width < 0 or height < 0:
        raise RejectError("bad_box", f"width and height must be positive, got {_short(box_xywh)}")
    if x + width == x or y + height == y:  # zero, or too small beside x to make a difference
        raise RejectError("empty_box", f"width or height is zero: {_short(box_xywh)}")
    return (x, y, width, height)


def around_polygons(polygons: object) -> list[float]:
    """The box (x, y, width, height) around untrusted polygons, each a list x1, y1, x2, y2, ...

    Raises:
        RejectError: `bad_box`, they are no such lists of finite numbers.
    """
    try:
        points = np.concatenate([np.asarray(polygon, dtype=np.float64).reshape(-1, 2) for polygon in polygons])  # type: ignore[attr-defined]
    except (TypeError, ValueError):
        raise RejectError("bad_box", f"not polygons: {_short(polygons)}") from None
    if not len(points) or not np.isfinite(points).all():
        raise RejectError("bad_box", f"not polygons of finite numbers: {_short(polygons)}")
    low, high = points.min(axis=0), points.max(axis=0)
    box: list[float] = [*low.tolist(), *(high - low).tolist()]
    return box


def clip_xywh(
    box_xywh: tuple[float, float, float, float], size_hw: tuple[int, int]
) -> tuple[float, float, float, float]:
    """The part of a checked box that lies on the image; a box inside it comes back bit for bit.

    Raises:
        RejectError: `empty_box`, the box lies wholly beside the image.
    """
    x, y, width, height = box_xywh
    if x >= 0 and y >= 0 and x + width <= size_hw[1] and y + height <= size_hw[0]:
        return box_xywh
    left, right = max(x, 0.0), min(x + width, float(size_hw[1]))
    top, bottom = max(y, 0.0), min(y + height, float(size_hw[0]))
    if left >= right or top >= bottom:
        raise RejectError("empty_box", f"{_short(box_xywh)} lies beside the image of {size_hw[1]}x{size_hw[0]} px")
    return (left, top, right - left, bottom - top)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _finite(value: int | float) -> float:
    try:
        number = float(value)
    except OverflowError:  # an integer of hundreds of digits
        number = math.inf
    if not math.isfinite(number):
        raise RejectError("bad_box", f"not a finite number: {_short(value)}")
    return number


def _short(value: object) -> str:
    """`value` for a message, without spelling out huge or nested ones."""
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_short(item) for item in value[:6]) + (", ..." if len(value) > 6 else "") + "]"
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, int) and abs(value) >= 10**30:
        return "a huge integer"
    return repr(value[:60] if isinstance(value, str) else value)
