"""COCO's average precision, by faster-coco-eval: its figures are pycocotools', two to three times faster."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Float64

from pseudolabel.metrics.objects import Prediction, TrueObject

MOST_DETECTIONS = 100  # of an image and class, COCO's
_AREAS = {"ap_small": 1, "ap_medium": 2, "ap_large": 3}  # their place in COCOeval's list of area ranges


@dataclass(frozen=True, slots=True)
class MaskAp:
    """Averages over IoU 0.50 to 0.95, recall and classes; None where there is no true object to find."""

    ap: float | None
    ap50: float | None
    ap75: float | None
    ap_small: float | None
    ap_medium: float | None
    ap_large: float | None
    per_class: Mapping[int, float | None]  # by category id


def mask_ap(
    objects: Iterable[TrueObject],
    predictions: Iterable[Prediction],
    *,
    detections: int = MOST_DETECTIONS,
    of: Literal["segm", "bbox"] = "segm",
) -> MaskAp:
    """The AP of predicted masks; crowds among the objects neither help nor hurt.

    Args:
        detections: how many of an image and class count, the best scored ones.
        of: masks, or boxes: of a prediction the one that it came from, or its mask's.
    """
    from faster_coco_eval import COCO, COCOeval_faster

    truth_rows, found_rows = [_truth_row(row) for row in objects], [_found_row(row) for row in predictions]
    for rows in (truth_rows, found_rows):
        for number, row in enumerate(rows, start=1):  # an id of 0 would read as "not matched"
            row["id"] = number
    if not any(not row["iscrowd"] for row in truth_rows):
        return MaskAp(None, None, None, None, None, None, {})
    truth, found = (
        COCO(_content(truth_rows, truth_rows + found_rows)),
        COCO(_content(found_rows, truth_rows + found_rows)),
    )
    evaluation = COCOeval_faster(truth, found, iouType=of, print_function=_quiet)
    evaluation.params.maxDets = sorted({1, min(10, detections), detections})
    evaluation.evaluate()
    evaluation.accumulate()
    return _read_out(evaluation.eval["precision"], evaluation.params)


def _read_out(precision: Float64[np.ndarray, "thresholds recalls classes areas limits"], params: Any) -> MaskAp:
    everything = precision[..., 0, -1]
    at = {round(100 * threshold): place for place, threshold in enumerate(params.iouThrs)}
    by_area = {name: _mean(precision[..., place, -1]) for name, place in _AREAS.items()}
    per_class = {int(key): _mean(everything[:, :, place]) for place, key in enumerate(params.catIds)}
    return MaskAp(
        _mean(everything), _mean(everything[at[50]]), _mean(everything[at[75]]), **by_area, per_class=per_class
    )


def _mean(precision: Float64[np.ndarray, "..."]) -> float | None:
    """The mean of what is defined; COCOeval writes -1 where a class has no true object."""
    defined = precision[precision > -1]
    return float(defined.mean()) if defined.size else None


def _truth_row(row: TrueObject) -> dict[str, Any]:
    key = {"image_id": row.image_id, "category_id": row.category_id, "iscrowd": int(row.is_crowd)}
    return {**key, "segmentation": dict(row.mask), "area": row.coco_area, "bbox": list(row.box_xywh)}


def _found_row(row: Prediction) -> dict[str, Any]:
    from pseudolabel.rle import area, bbox_xywh

    key = {"image_id": row.image_id, "category_id": row.category_id, "iscrowd": 0, "score": row.score}
    box = row.source_box_xywh or bbox_xywh(row.mask)
    return {**key, "segmentation": dict(row.mask), "area": area(row.mask), "bbox": list(box)}


def _content(rows: list[dict[str, Any]], every_row: list[dict[str, Any]]) -> dict[str, Any]:
    sizes = {row["image_id"]: row["segmentation"]["size"] for row in every_row}
    images = [{"id": key, "height": sizes[key][0], "width": sizes[key][1]} for key in sorted(sizes)]
    categories = [{"id": key, "name": str(key)} for key in sorted({row["category_id"] for row in every_row})]
    return {"info": {}, "images": images, "annotations": rows, "categories": categories}


def _quiet(*_: object) -> None:
    """COCOeval wants something to print with."""
