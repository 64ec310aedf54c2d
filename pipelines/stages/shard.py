"""`shard`: every image of the plan opened once, its boxes checked against its true size."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa

from pseudolabel import records
from pseudolabel.boxes import check_xywh, clip_xywh
from pseudolabel.datasets.frame import check_frame
from pseudolabel.errors import RejectError
from pseudolabel.images import ImageHeader, check_decodes, content_digest, read_file, read_header
from pseudolabel.pipelines.options.stages.shard import ShardConfig
from pseudolabel.pipelines.stage import Shard, Stage
from pseudolabel.pipelines.work.tally import counted

Row = dict[str, Any]


class ShardStage(Stage[ShardConfig]):
    """Reads the plan, writes the manifest."""

    name = "shard"
    version = 3
    config_class = ShardConfig
    schema = records.MANIFEST
    writes = "manifest"

    def reads(self) -> tuple[str, ...]:
        return ("plan",)

    def run(self, shard: Shard, inputs: Mapping[str, pa.Table]) -> pa.Table:
        rows: list[Row] = []
        notes: Counter[str] = Counter()
        for row in counted(inputs["plan"].to_pylist()):
            opened = [row] if row["status"] == "rejected" else list(self._opened(row, shard))
            notes.update(_notes(row, opened[0]))
            rows += opened
        rows.sort(key=lambda row: (row["image_key"], row.get("annotation_id") is not None, row.get("annotation_id")))
        return records.with_notes(records.table_from_rows(rows, records.MANIFEST), notes)

    def _opened(self, row: Row, shard: Shard) -> Iterator[Row]:
        """The image's row with what the file says of it, and a row for every annotation that cannot stay."""
        try:
            header, file = self._header(row, shard)
        except RejectError as error:
            yield {**row, "objects": None, **records.rejected(self.name, error.reason, error.detail)}
            refused = RejectError("image_rejected", f"{error.reason}: {error.detail}")
            yield from (_rejected_object(row, cell, refused) for cell in row["objects"] or ())
            return
        kept, refusals = _checked_objects(row, header.size_hw)
        yield {
            **row,
            "width": header.width,
            "height": header.height,
            "exif_orientation": header.orientation,
            **file,
            "objects": kept,
            **records.ok(self.name),
            "detail": header.note or None,
        }
        yield from refusals

    def _header(self, row: Row, shard: Shard) -> tuple[ImageHeader, Row]:
        """The header of an image that can be decoded and has the size that the annotations claim; what its file is."""
        data = read_file(shard.images_root, row["file_name"], max_bytes=self.config.max_bytes)
        header = read_header(data, rule=shard.rule, max_pixels=self.config.max_pixels)
        boxes = [cell["bbox_xywh"] for cell in row["objects"] or ()]
        check_frame((row["height"], row["width"]), header, boxes, shard.rule.exif)
        check_decodes(data, rule=shard.rule, max_pixels=self.config.max_pixels)
        return header, {"file_bytes": len(data), "file_digest": content_digest(data)}


def _notes(planned: Row, opened: Row) -> Counter[str]:
    """What was taken and deserves a word: boxes that were cut to the image, given twice, or are crowd regions."""
    before = {cell["annotation_id"]: list(cell["bbox_xywh"]) for cell in planned["objects"] or ()}
    kept = opened["objects"] or []
    clipped = sum(list(cell["bbox_xywh"]) != before[cell["annotation_id"]] for cell in kept)
    boxes = Counter((cell["category_id"], *cell["bbox_xywh"]) for cell in kept if not cell["iscrowd"])
    doubled = sum(count - 1 for count in boxes.values())
    remarks = opened["status"] == "ok" and opened.get("detail") is not None  # pages and channels that are not looked at
    return Counter(clipped=clipped, doubled=doubled, crowd=sum(cell["iscrowd"] for cell in kept), passed_over=remarks)


def _checked_objects(row: Row, size_hw: tuple[int, int]) -> tuple[list[Row], list[Row]]:
    """Objects with their boxes clipped to the image, and rows for those that cannot be used on it."""
    kept: list[Row] = []
    refusals: list[Row] = []
    for cell in row["objects"] or ():
        try:
            kept.append(_checked_object(cell, size_hw))
        except RejectError as error:
            refusals.append(_rejected_object(row, cell, error))
    return kept, refusals


def _checked_object(cell: Row, size_hw: tuple[int, int]) -> Row:
    bbox_xywh = clip_xywh(check_xywh(cell["bbox_xywh"]), size_hw)
    return {**cell, "bbox_xywh": list(bbox_xywh), "segmentation": _paintable(cell["segmentation"], size_hw)}


def _paintable(segmentation: str | None, size_hw: tuple[int, int]) -> str | None:
    """A mask that can be painted on the image; else none, because labelling reads the box alone."""
    from pseudolabel.rle import from_segmentation  # numba, which takes seconds

    try:
        if segmentation is not None:
            from_segmentation(json.loads(segmentation), size_hw)
    except (RejectError, json.JSONDecodeError):
        return None
    return segmentation


def _rejected_object(row: Row, cell: Row, error: RejectError) -> Row:
    return {
        "image_key": row["image_key"],
        "image_id": row["image_id"],
        "annotation_id": cell["annotation_id"],
        **records.rejected("shard", error.reason, error.detail),
    }
