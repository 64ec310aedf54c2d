"""Own detections taken apart: how good their masks and boxes are whatever their class, and how often it is right."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np
from jaxtyping import Float64

from pseudolabel.boxes import iou_matrix, xywh_to_xyxy
from pseudolabel.metrics.coco_ap import MOST_DETECTIONS, mask_ap
from pseudolabel.metrics.objects import Box, Prediction, TrueObject
from pseudolabel.rle import bbox_xywh

FOUND_IOU = 0.5  # of boxes, from which an object counts as found
RowT = TypeVar("RowT", TrueObject, Prediction)


def detection_figures(
    objects: Sequence[TrueObject], predictions: Sequence[Prediction], *, detections: int = MOST_DETECTIONS
) -> dict[str, float | None]:
    """`ap_any_class`, `box_ap`, `box_ap_any_class` and `class_right`, beside the AP of masks and classes together.

    `class_right` is the share of the objects found, by a box IoU of 0.5, of which the best-scored finder has the class;
    None where no object is found. Of one class alone it says nothing.

    Args:
        objects: crowds among them neither help nor hurt the APs, and are not looked for.
        detections: how many of an image count, for AP with classes of each class.
    """
    alike, found_alike = _one_class(objects), _one_class(predictions)
    return {
        "ap_any_class": mask_ap(alike, found_alike, detections=detections).ap,
        "box_ap": mask_ap(objects, predictions, detections=detections, of="bbox").ap,
        "box_ap_any_class": mask_ap(alike, found_alike, detections=detections, of="bbox").ap,
        "class_right": class_right(objects, predictions),
    }


def class_right(objects: Sequence[TrueObject], predictions: Sequence[Prediction]) -> float | None:
    """The share of the objects found whose best-scored finder has their class; None where none is found."""
    by_image: dict[int, list[Prediction]] = defaultdict(list)
    for one in predictions:
        by_image[one.image_id].append(one)
    wanted: dict[int, list[TrueObject]] = defaultdict(list)
    for row in objects:
        if not row.is_crowd:
            wanted[row.image_id].append(row)
    right = [one for image, rows in wanted.items() for one in _right(rows, by_image[image])]
    return float(np.mean(right)) if right else None


def _right(rows: Sequence[TrueObject], found: Sequence[Prediction]) -> list[bool]:
    """Of every object of an image that is found whether its class is right."""
    if not found:
        return []
    overlap = iou_matrix(_corners([row.box_xywh for row in rows]), _corners([_box(one) for one in found]))
    score = np.where(overlap >= FOUND_IOU, [one.score for one in found], -1.0)
    best = score.argmax(axis=1)
    pairs = zip(rows, best, score.max(axis=1) >= 0, strict=True)
    return [found[place].category_id == row.category_id for row, place, seen in pairs if seen]


def _box(one: Prediction) -> Box:
    return one.source_box_xywh or bbox_xywh(one.mask)


def _corners(boxes_xywh: Sequence[Box]) -> Float64[np.ndarray, "n 4"]:
    return xywh_to_xyxy(np.array(boxes_xywh, dtype=np.float64).reshape(-1, 4))


def _one_class(rows: Sequence[RowT]) -> list[RowT]:
    return [replace(row, category_id=1) for row in rows]
