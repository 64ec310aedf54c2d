"""The tables that stages pass to each other: Arrow schemas, reasons of rejection, and rows of candidates.

Every table is one Parquet file per shard. Every row has a `status`:

* `ok`: a result;
* `empty`: the unit was processed and has no result (an image without a candidate), so that it is seen to be there;
* `rejected`: the unit could not be processed; `reason`, `detail` and `stage` say why.

docs/formats.md describes every column for users.
"""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from pseudolabel.masks import Grid, SoftMask

FORMAT_VERSION = 1

Row = dict[str, Any]
_NOTES_KEY = b"notes"

REASONS = (
    # images
    "missing", "permission", "unsupported_format", "empty_file", "too_large", "too_many_pixels", "undecodable",
    "decoder_crash", "decoder_timeout", "size_mismatch", "outside_root", "not_a_file", "bad_name", "duplicate_image",
    "changed_since_plan", "bad_record",
    # annotations
    "no_such_image", "no_such_category", "duplicate_annotation", "bad_box", "empty_box", "bad_segmentation",
    "bad_crowd_flag", "bad_annotation", "image_rejected",
    # results
    "non_finite", "no_label_file", "unknown_label_ids", "label_size_mismatch", "out_of_memory",
)  # fmt: skip

_STATUS_FIELDS = [
    pa.field("status", pa.string(), nullable=False),
    pa.field("reason", pa.string()),
    pa.field("detail", pa.string()),
    pa.field("stage", pa.string(), nullable=False),
]

_BOX = pa.list_(pa.float32(), 4)

_OBJECT = pa.struct(
    [
        pa.field("annotation_id", pa.int64(), nullable=False),
        pa.field("category_id", pa.int64(), nullable=False),
        pa.field("bbox_xywh", pa.list_(pa.float64(), 4), nullable=False),
        pa.field("iscrowd", pa.bool_(), nullable=False),
        # what else the source says of it (its own id, attributes, a detector's score): the JSON of an object
        pa.field("extra", pa.string()),
        # only `evaluate` and the fully-supervised reference runs may read this column; see pipelines/stage.py
        pa.field("segmentation", pa.string()),
    ]
)

RLE = pa.struct([pa.field("size", pa.list_(pa.int32())), pa.field("counts", pa.string())])

SOFT_MASK = pa.struct(
    [
        pa.field("x0", pa.float32(), nullable=False),
        pa.field("y0", pa.float32(), nullable=False),
        pa.field("stride_x", pa.float32(), nullable=False),
        pa.field("stride_y", pa.float32(), nullable=False),
        pa.field("height", pa.int32(), nullable=False),
        pa.field("width", pa.int32(), nullable=False),
        pa.field("probability", pa.binary(), nullable=False),
    ]
)

_LOOK = pa.struct([pa.field("annotation_id", pa.int64(), nullable=False), pa.field("mask", SOFT_MASK, nullable=False)])

MANIFEST = pa.schema(
    [
        pa.field("image_key", pa.string(), nullable=False),
        pa.field("image_id", pa.int64()),
        pa.field("file_name", pa.string()),
        pa.field("width", pa.int32()),
        pa.field("height", pa.int32()),
        pa.field("exif_orientation", pa.int8()),
        pa.field("split", pa.string()),
        # of the image file when `shard` read it
        pa.field("file_bytes", pa.int64()),
        pa.field("file_digest", pa.string()),
        pa.field("annotation_id", pa.int64()),  # set on the rows of rejected annotations alone
        pa.field("objects", pa.list_(_OBJECT)),
        pa.field("image_extra", pa.string()),  # what else the source says of the image: the JSON of an object
        *_STATUS_FIELDS,
    ]
)

SEMANTIC = pa.schema(
    [
        pa.field("image_key", pa.string(), nullable=False),
        pa.field("classes", pa.list_(pa.string())),
        pa.field("label_map", pa.binary()),  # PNG, one class index per pixel, 255 = ignore
        pa.field("confidence", pa.binary()),  # PNG, uint8, probability of that class
        # probability of a box's own class around it, by a closer look at it; null where the run asked for none
        pa.field("looks", pa.list_(_LOOK)),
        *_STATUS_FIELDS,
    ]
)

CANDIDATES = pa.schema(
    [
        pa.field("image_key", pa.string(), nullable=False),
        pa.field("annotation_id", pa.int64()),
        pa.field("source", pa.string()),
        pa.field("category_id", pa.int64()),
        pa.field("box_xyxy", _BOX),
        pa.field("box_score", pa.float32()),
        pa.field("box_iou", pa.float32()),
        pa.field("mask", SOFT_MASK),
        # the mask's probabilities are of the object's class against all others; null counts as false
        pa.field("knows_class", pa.bool_()),
        *_STATUS_FIELDS,
    ]
)

EVIDENCE = pa.struct(
    [
        pa.field(name, pa.float32())
        for name in ("consensus", "prompted", "contrast", "edges", "covered", "fill", "solidity", "extent")
    ]
)

PSEUDO = pa.schema(
    [
        pa.field("image_key", pa.string(), nullable=False),
        pa.field("annotation_id", pa.int64()),
        pa.field("category_id", pa.int64()),
        pa.field("segmentation", RLE),
        # pixels that may well be what the mask says they are not; null where a box stands in for a mask
        pa.field("unsure", RLE),
        pa.field("bbox_xywh", pa.list_(pa.float64(), 4)),
        pa.field("source_bbox_xywh", pa.list_(pa.float64(), 4)),
        pa.field("area", pa.int64()),
        pa.field("iscrowd", pa.bool_()),
        pa.field("score", pa.float32()),
        pa.field("box_quality", pa.float32()),
        pa.field("pixel_quality", pa.float32()),
        pa.field("expected_iou", pa.float32()),
        pa.field("calibrated_iou", pa.float32()),
        pa.field("candidates_used", pa.int32()),
        pa.field("sources", pa.list_(pa.string())),
        pa.field("agreement", pa.float32()),
        # what the score was made from, see `pseudolabel.fusion.evidence`; null where a box stands in for a mask
        pa.field("evidence", EVIDENCE),
        pa.field("reasons", pa.list_(pa.string())),  # what speaks against the mask
        pa.field("decision", pa.string()),
        pa.field("decision_reason", pa.string()),
        pa.field("provenance_id", pa.string()),
        *_STATUS_FIELDS,
    ]
)

# what people answered, as `fuse` takes it: the last word on an object, see pseudolabel/reviews.py
REVIEWED = pa.schema(
    [
        pa.field("image_key", pa.string(), nullable=False),
        pa.field("annotation_id", pa.int64()),
        pa.field("verdict", pa.string()),
        pa.field("category_id", pa.int64()),  # null where the given class holds
        pa.field("segmentation", RLE),
        pa.field("origin", pa.string()),
        pa.field("seen", pa.string()),
        pa.field("seconds", pa.float32()),
        pa.field("reviewer", pa.string()),
        pa.field("at", pa.string()),
        *_STATUS_FIELDS,
    ]
)


def expected_iou(row: Mapping[str, Any]) -> float:
    """What a pseudo label's IoU with the true mask is expected to be: calibrated where `fuse` had a calibration."""
    calibrated = row["calibrated_iou"]
    return float(row["score"] if calibrated is None else calibrated)


def soft_mask_to_struct(mask: SoftMask) -> dict[str, Any]:
    """A mask as the value of a `mask` cell."""
    grid = mask.grid
    return {
        "x0": grid.x0,
        "y0": grid.y0,
        "stride_x": grid.stride_x,
        "stride_y": grid.stride_y,
        "height": grid.height,
        "width": grid.width,
        "probability": np.ascontiguousarray(mask.probability).tobytes(),
    }


def soft_mask_from_struct(cell: dict[str, Any]) -> SoftMask:
    """The mask in a `mask` cell.

    Raises:
        ValueError: the bytes are not height x width, or the grid is impossible.
    """
    grid = Grid(cell["x0"], cell["y0"], cell["stride_x"], cell["stride_y"], cell["height"], cell["width"])
    cells = np.frombuffer(cell["probability"], dtype=np.uint8)
    if cells.size != grid.height * grid.width:
        raise ValueError(f"expected {grid.height} x {grid.width} bytes, got {cells.size}")
    return SoftMask(grid, cells.reshape(grid.height, grid.width))


def ok(stage: str) -> dict[str, Any]:
    """The status columns of a result."""
    return {"status": "ok", "reason": None, "detail": None, "stage": stage}


def empty(stage: str) -> dict[str, Any]:
    """The status columns of a unit that was processed and has no result."""
    return {"status": "empty", "reason": None, "detail": None, "stage": stage}


def rejected(stage: str, reason: str, detail: str = "") -> dict[str, Any]:
    """The status columns of a unit that could not be processed.

    Raises:
        ValueError: `reason` is not in the closed list.
    """
    if reason not in REASONS:
        raise ValueError(f"unknown reason {reason!r}")
    return {"status": "rejected", "reason": reason, "detail": detail[:300], "stage": stage}


def reject_text(row: Mapping[str, Any]) -> str:
    """Where a rejected row is from and what was found: `a/b.jpg id 7: the width is 0`."""
    number = row.get("annotation_id")
    place = f"{row.get('file_name') or row['image_key']}" + ("" if number is None or number < 0 else f" id {number}")
    return f"{place}: {row['detail'] or row['reason']}"


def table_from_rows(rows: list[dict[str, Any]], schema: pa.Schema) -> pa.Table:
    """Rows as a table of exactly `schema`; columns that a row leaves out are null."""
    return pa.Table.from_pylist(rows, schema=schema)


def with_notes(table: pa.Table, notes: Mapping[str, int]) -> pa.Table:
    """The table with counts of what was used and still deserves a word, such as boxes that were clipped."""
    kept = {name: count for name, count in sorted(notes.items()) if count}
    return table.replace_schema_metadata({**(table.schema.metadata or {}), _NOTES_KEY: json.dumps(kept)})


def notes_of(table: pa.Table) -> dict[str, int]:
    """What `with_notes` put there."""
    text = (table.schema.metadata or {}).get(_NOTES_KEY)
    return dict(json.loads(text)) if text else {}
