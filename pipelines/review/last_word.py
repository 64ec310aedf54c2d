"""What people answered is the last word: rows of `fuse` with the answers of the table `reviewed`."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from pseudolabel.masks import PixelMask, pixel_window
from pseudolabel.pipelines.review.reviewed import TABLE

if TYPE_CHECKING:  # numba, which a stage's import does without
    from pseudolabel.rle import Rle

Row = dict[str, Any]
REVIEWED = "reviewed"  # the decision's reason, and the source, of what a person decided


def with_answers(rows: Sequence[Row], inputs: Mapping[str, pa.Table]) -> list[Row]:
    """The rows of a shard's pseudo labels, those that somebody answered about as the answer says.

    An accepted mask has score 1 and is kept; a box alone has score 0; an object that is none, or of none of the
    classes, is ignored.

    Args:
        inputs: what `fuse` read; without a table of answers the rows are what they were.
    """
    table = inputs.get(TABLE)
    if table is None:
        return list(rows)
    said = table.filter(pc.equal(table["status"], "ok")).to_pylist()
    answers = {(one["image_key"], one["annotation_id"]): one for one in said}
    return [_answered(row, answers.get((row["image_key"], row.get("annotation_id")))) for row in rows]


def _answered(row: Row, answer: Row | None) -> Row:
    if answer is None or row["status"] != "ok" or row["iscrowd"]:
        return row
    from pseudolabel.rle import area, bbox_xywh

    decision, mask, score = _decided(row, answer)
    return row | {
        "category_id": row["category_id"] if answer["category_id"] is None else answer["category_id"],
        "segmentation": mask,
        "area": area(mask),
        "bbox_xywh": [float(side) for side in bbox_xywh(mask)],
        "unsure": None,
        "reasons": [],
        "score": score,
        "calibrated_iou": None if row["calibrated_iou"] is None else score,
        "decision": decision,
        "decision_reason": REVIEWED,
        "sources": [REVIEWED],
        "provenance_id": REVIEWED,
    }


def _decided(row: Row, answer: Row) -> tuple[str, "Rle", float]:
    if answer["verdict"] == "accept":
        return "keep", answer["segmentation"], 1.0
    if answer["verdict"] == "box_only":
        return "box_only", _rectangle(row), 0.0
    return "ignore", row["segmentation"], 0.0


def _rectangle(row: Row) -> "Rle":
    """The given box as a mask."""
    import numpy as np

    from pseudolabel.rle import encode_crop

    x, y, width, height = row["source_bbox_xywh"]
    rows, columns = row["segmentation"]["size"]
    window = pixel_window((x, y, x + width, y + height), (rows, columns))
    pixels = np.ones((window.height, window.width), dtype=np.bool_)
    return encode_crop(PixelMask(int(window.x0), int(window.y0), pixels), (rows, columns))
