"""One file of masks against the truth: figures over all objects, per class and per size."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float64

from pseudolabel.metrics.calibration import (
    bootstrap_interval,
    expected_calibration_error,
    oracle_risk_coverage_area,
    risk_coverage_area,
    spearman,
)
from pseudolabel.metrics.coco_ap import MOST_DETECTIONS, mask_ap
from pseudolabel.metrics.detection import detection_figures
from pseudolabel.metrics.mask_iou import box_mask, ellipse_mask, object_ious, size_name
from pseudolabel.metrics.objects import Prediction, TrueObject, Truth

Figures = dict[str, Any]
SIZES = ("small", "medium", "large")


@dataclass(frozen=True, slots=True)
class Selection:
    """Which true objects count; crowds never do.

    Args:
        categories: class names, empty for all.
        min_area_px: least number of pixels of the true mask.
        detections: how many masks of an image and class count for AP.
    """

    categories: tuple[str, ...] = ()
    min_area_px: int = 0
    detections: int = MOST_DETECTIONS


def compare(truth: Truth, predictions: Sequence[Prediction], selection: Selection, *, by_id: bool) -> Figures:
    """All figures of `predictions` over the selected objects, and in `baseline_box` those of the boxes themselves.

    `baseline_ellipse` has the IoU of the ellipses in these boxes alone. Without `by_id` there are
    those of `detection_figures`, too: what of the AP is the masks', the boxes' and the classes'.

    A prediction for an object that is not selected does not count against anybody. `baseline_box` takes the box that
    a prediction says it came from, and the truth's box where none does.

    Args:
        by_id: predictions carry the ids of the true annotations that they belong to. Without that there is no IoU per
            object: those figures are None, and AP alone is measured.
    """
    objects, crowds = _selected(truth, selection)
    kept = _without_others(truth, objects, predictions, by_id)
    figures = _figures(truth, objects, crowds, kept, by_id, selection.detections)
    figures |= _of_own_detections([*objects, *crowds], kept, selection, by_id=by_id)
    boxes = _boxes(objects, kept if by_id else [])
    figures["baseline_box"] = _figures(truth, objects, crowds, boxes, True, selection.detections)
    figures["baseline_ellipse"] = _ellipses(objects, boxes)
    return figures


def _selected(truth: Truth, selection: Selection) -> tuple[list[TrueObject], list[TrueObject]]:
    """Objects that count, and crowds of their classes."""
    wanted = set(selection.categories)
    rows = [row for row in truth.objects if not wanted or truth.class_names.get(row.category_id) in wanted]
    objects = [row for row in rows if not row.is_crowd and row.area_px >= selection.min_area_px]
    return objects, [row for row in rows if row.is_crowd]


def _without_others(
    truth: Truth, objects: Sequence[TrueObject], predictions: Sequence[Prediction], by_id: bool
) -> list[Prediction]:
    if not by_id:
        classes = {row.category_id for row in objects}
        return [row for row in predictions if row.category_id in classes]
    others = {(row.image_id, row.annotation_id) for row in truth.objects}
    others -= {(row.image_id, row.annotation_id) for row in objects}
    return [row for row in predictions if (row.image_id, row.annotation_id) not in others]


def _of_own_detections(
    rows: Sequence[TrueObject], predictions: Sequence[Prediction], selection: Selection, *, by_id: bool
) -> Figures:
    """Nothing of masks for given boxes: there boxes and classes are the given ones."""
    return {} if by_id else detection_figures(rows, predictions, detections=selection.detections)


def _ellipses(objects: Sequence[TrueObject], boxes: Sequence[Prediction]) -> Figures:
    """The other baseline: the ellipse in every object's box as its mask."""
    masks = [
        replace(one, mask=ellipse_mask(one.source_box_xywh or row.box_xywh, (row.mask["size"][0], row.mask["size"][1])))
        for row, one in zip(objects, boxes, strict=True)
    ]
    return _iou_figures(objects, object_ious(objects, masks))


def _boxes(objects: Sequence[TrueObject], predictions: Sequence[Prediction]) -> list[Prediction]:
    """The baseline: every object's box as its mask, all with the same score."""
    own = {(row.image_id, row.annotation_id): row.source_box_xywh for row in predictions}
    boxes = [own.get((row.image_id, row.annotation_id)) or row.box_xywh for row in objects]
    return [
        Prediction(row.annotation_id, row.image_id, row.category_id, _box_mask(row, box), 1.0, box)
        for row, box in zip(objects, boxes, strict=True)
    ]


def _box_mask(row: TrueObject, box: tuple[float, float, float, float]) -> Any:
    return box_mask(box, (row.mask["size"][0], row.mask["size"][1]))


def _figures(
    truth: Truth,
    objects: Sequence[TrueObject],
    crowds: Sequence[TrueObject],
    predictions: Sequence[Prediction],
    by_id: bool,
    detections: int,
) -> Figures:
    ious = object_ious(objects, predictions) if by_id else None
    ap = mask_ap([*objects, *crowds], predictions, detections=detections)
    figures = _iou_figures(objects, ious)
    figures |= {"ap": ap.ap, "ap50": ap.ap50, "ap75": ap.ap75, "n_predictions": len(predictions)}
    figures |= _score_figures(objects, predictions, ious)
    figures["per_class"] = _grouped(objects, ious, lambda row: _class_name(truth, row.category_id))
    for category_id, value in ap.per_class.items():
        if _class_name(truth, category_id) in figures["per_class"]:
            figures["per_class"][_class_name(truth, category_id)]["ap"] = value
    figures["per_size"] = _grouped(objects, ious, lambda row: size_name(row.area_px))
    for size, block in figures["per_size"].items():
        block["ap"] = getattr(ap, f"ap_{size}")
    return figures


def _iou_figures(objects: Sequence[TrueObject], ious: Float64[np.ndarray, " n"] | None) -> Figures:
    names = ("mean_iou", "iou_over_50", "iou_over_75")
    if ious is None or not len(ious):
        return {"n": len(objects), **dict.fromkeys(names)}
    values = (ious.mean(), (ious > 0.5).mean(), (ious > 0.75).mean())
    return {"n": len(objects), **{name: float(value) for name, value in zip(names, values, strict=True)}}


def _grouped(
    objects: Sequence[TrueObject], ious: Float64[np.ndarray, " n"] | None, name_of: Callable[[TrueObject], str]
) -> dict[str, Figures]:
    names = [name_of(row) for row in objects]
    order = [size for size in SIZES if size in names] or sorted(set(names))
    groups = {name: [place for place, own in enumerate(names) if own == name] for name in order}
    return {
        name: _iou_figures([objects[place] for place in places], None if ious is None else ious[places])
        for name, places in groups.items()
    }


def _score_figures(
    objects: Sequence[TrueObject], predictions: Sequence[Prediction], ious: Float64[np.ndarray, " n"] | None
) -> Figures:
    """What the scores say about the IoUs, over the objects that have a mask; None where nothing can be said."""
    names = ("mean_iou_interval", "spearman", "ece", "risk_coverage", "risk_coverage_oracle")
    by_id = {(row.image_id, row.annotation_id): row.score for row in predictions}
    found = [place for place, row in enumerate(objects) if (row.image_id, row.annotation_id) in by_id]
    if ious is None or not found:
        return dict.fromkeys(names)
    scores = np.array([by_id[objects[place].image_id, objects[place].annotation_id] for place in found])
    images = np.array([row.image_id for row in objects], dtype=np.int64)
    measured = (
        list(bootstrap_interval(lambda rows: float(ious[rows].mean()), images)),
        spearman(scores, ious[found]),
        expected_calibration_error(scores, ious[found]),
        risk_coverage_area(scores, ious[found]),
        oracle_risk_coverage_area(ious[found]),
    )
    return dict(zip(names, measured, strict=True))


def _class_name(truth: Truth, category_id: int) -> str:
    return truth.class_names.get(category_id, str(category_id))
