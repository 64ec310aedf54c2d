"""What an audit tells of an annotation, and what the boxes alone let it tell."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from pseudolabel.audit.kinds import Kind
from pseudolabel.boxes import area_xyxy, clip_xyxy, iou_matrix

Box = tuple[float, float, float, float]

DOUBLED_IOU = 0.9
TINY_PX = 4.0
OUTSIDE_SHARE = 0.02
_WHOLE_IMAGE = 0.98
_ODD = 6.0  # robust standard deviations of a class's log sizes and shapes
_LEAST_OF_CLASS = 20


@dataclass(frozen=True, slots=True)
class GivenObject:
    """An annotation as the file has it."""

    annotation_id: int
    category_id: int
    class_name: str
    box_xyxy: Box


@dataclass(frozen=True, slots=True)
class Issue:
    """Something that is likely wrong, by a score in (0, 1]; the more the surer."""

    kind: Kind
    score: float
    suggestion: str
    annotation_id: int | None = None  # None where an annotation is missing
    other_id: int | None = None  # another annotation that it is about, too
    box_xyxy: Box | None = None  # as it should be, where that can be told


def doubled(objects: Sequence[GivenObject]) -> Iterator[Issue]:
    """Objects of one image whose box another one before them has, too."""
    boxes = np.array([one.box_xyxy for one in objects], dtype=np.float64).reshape(-1, 4)
    ious = np.triu(iou_matrix(boxes, boxes), k=1)
    for first, second in zip(*np.nonzero(ious >= DOUBLED_IOU), strict=True):
        one, other = objects[first], objects[second]
        same = one.category_id == other.category_id
        what = "delete one of the two" if same else f"one box is {one.class_name} and {other.class_name}: keep one"
        yield Issue("doubled", float(ious[first, second]), what, other.annotation_id, one.annotation_id)


def ill_placed(objects: Sequence[GivenObject], size_hw: tuple[int, int]) -> Iterator[Issue]:
    """Boxes that are too small for a mask, that lie beside the image, or that are the whole of it."""
    height, width = size_hw
    for one in objects:
        left, top, right, bottom = one.box_xyxy
        side = min(right - left, bottom - top)
        if side < TINY_PX:
            yield Issue("tiny", 1 - max(side, 0) / (2 * TINY_PX), "too small to have a mask", one.annotation_id)
        box = np.array([one.box_xyxy], dtype=np.float64)
        whole, inside = float(area_xyxy(box)[0]), float(area_xyxy(clip_xyxy(box, size_hw))[0])
        beside = 1 - inside / whole if whole > 0 else 0.0
        if beside > OUTSIDE_SHARE:
            cut = (max(left, 0.0), max(top, 0.0), min(right, float(width)), min(bottom, float(height)))
            yield Issue("outside", min(beside, 1.0), "cut to the image", one.annotation_id, box_xyxy=cut)
        if inside >= _WHOLE_IMAGE * height * width:
            yield Issue("odd_size", 0.5, "it is the whole image", one.annotation_id)


def odd_sizes(objects: Sequence[GivenObject], sizes_hw: Sequence[tuple[int, int]]) -> Iterator[Issue]:
    """Boxes whose area in their image, or whose shape, is far from the rest of their class; of all images at once."""
    classes = np.array([one.category_id for one in objects])
    features = np.array([_shape(one, size) for one, size in zip(objects, sizes_hw, strict=True)]).reshape(-1, 2)
    for category in np.unique(classes):
        places = np.flatnonzero(classes == category)
        if len(places) < _LEAST_OF_CLASS:
            continue
        own = features[places]
        middle = np.median(own, axis=0)
        spread = 1.4826 * np.median(np.abs(own - middle), axis=0)
        far = (np.abs(own - middle) / np.maximum(spread, 0.1)).max(axis=1)
        for place, distance in zip(places, far, strict=True):
            if distance > _ODD:
                one = objects[int(place)]
                text = f"unlike the other {one.class_name} boxes in size or shape"
                yield Issue("odd_size", float(1 - _ODD / (2 * distance)), text, one.annotation_id)


def _shape(one: GivenObject, size_hw: tuple[int, int]) -> Float64[np.ndarray, "2"]:
    """Logarithms of the share of the image and of width by height."""
    left, top, right, bottom = one.box_xyxy
    width, height = max(right - left, 1e-3), max(bottom - top, 1e-3)
    return np.log([width * height / (size_hw[0] * size_hw[1]), width / height])
