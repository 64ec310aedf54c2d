"""What a pseudo label's row tells about how good its mask is; everything is in the row itself."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float64

from pseudolabel.boxes import iou_matrix, xywh_to_xyxy

FEATURES = (
    "score",
    "box_quality",
    "pixel_quality",
    "expected_iou",
    "agreement",
    "one_source",
    "sources",
    "candidates",
    "side",
    "elongation",
    "fill",
    "tightness",
    "class_frequency",
    "box_only",
)


def feature_matrix(
    rows: Sequence[Mapping[str, Any]], class_counts: Mapping[int, int]
) -> Float64[np.ndarray, "n features"]:
    """One line per row of `records.PSEUDO`, columns as in `FEATURES`.

    Args:
        class_counts: objects per category where the calibration was learned; an unseen one counts as one object.
    """
    return np.array([_features(row, class_counts) for row in rows], dtype=np.float64).reshape(len(rows), len(FEATURES))


def tightness(row: Mapping[str, Any]) -> float:
    """IoU of the mask's extent with the box that was given: a tight box is touched by its object on every side."""
    boxes = xywh_to_xyxy(np.array([row["bbox_xywh"], row["source_bbox_xywh"]], dtype=np.float64))
    return float(iou_matrix(boxes[:1], boxes[1:])[0, 0])


def _features(row: Mapping[str, Any], class_counts: Mapping[int, int]) -> list[float]:
    width, height = row["source_bbox_xywh"][2:]
    one_source = row["agreement"] is None
    return [
        _log_odds(row["score"]),
        row["box_quality"] or 0.0,
        row["pixel_quality"] or 0.0,
        _log_odds(row["expected_iou"] or 0.0),
        0.0 if one_source else row["agreement"],
        float(one_source),
        float(len(row["sources"] or ())),
        math.log1p(row["candidates_used"] or 0),
        math.log(max(math.sqrt(width * height), 1.0)),
        abs(math.log(max(width, 1e-3) / max(height, 1e-3))),
        min(row["area"] / max(width * height, 1.0), 1.5),
        tightness(row),
        math.log(max(class_counts.get(row["category_id"], 1), 1)),
        float(row.get("decision") == "box_only"),
    ]


def _log_odds(share: float) -> float:
    clipped = min(max(share, 0.02), 0.98)
    return math.log(clipped / (1 - clipped))
