"""`shard`: every image of the plan opened once, its boxes checked against its true size."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa

from pseudolabel import records
from pseudolabel.boxes import check_xywh, clip_xywh
from pseudolabel.errors import RejectError
from pseudolabel.images import ExifRule, ImageHeader, check_decodes, read_file, read_header
from pseudolabel.pipelines.options.shard import ShardConfig
from pseudolabel.pipelines.stage import Shard, Stage

Row = dict[str, Any]


class ShardStage(Stage[ShardConfig]):
    """Reads the plan, writes the manifest."""

    name = "shard"
    version = 1
    config_class = ShardConfig
    schema = records.MANIFEST
    writes = "manifest"

    def reads(self) -> tuple[str, ...]:
        return ("plan",)

    def run(self, shard: Shard, inputs: Mapping[str, pa.Table]) -> pa.Table:
        rows: list[Row] = []
        for row in inputs["plan"].to_pylist():
            rows += [row] if row["status"] == "rejected" else self._opened(row, shard)
        rows.sort(key=lambda row: (row["image_key"], row.get("annotation_id") is not None, row.get("annotation_id")))
        return records.table_from_rows(rows, records.MANIFEST)

    def _opened(self, row: Row, shard: Shard) -> Iterator[Row]:
        """The image's row with what the file says of it, and a row for every annotation that cannot stay."""
        try:
            header = self._header(row, shard)
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
            "objects": kept,
            **records.ok(self.name),
        }
        yield from refusals

    def _header(self, row: Row, shard: Shard) -> ImageHeader:
        """The header of an image that can be decoded and has the size that the annotations claim."""
        data = read_file(shard.images_root, row["file_name"], max_bytes=self.config.max_bytes)
        header = read_header(data, exif=shard.exif, max_pixels=self.config.max_pixels)
        _check_size(row, header, shard.exif)
        check_decodes(data, max_pixels=self.config.max_pixels)
        return header


def _check_size(row: Row, header: ImageHeader, rule: ExifRule) -> None:
    claimed = (row["height"], row["width"])
    if claimed in ((None, None), header.size_hw):
        return
    found = f"size is {header.width}x{header.height}, the annotations say {row['width']}x{row['height']}."
    if claimed != header.size_hw[::-1] or not header.swaps_sides:
        raise RejectError("size_mismatch", found)
    cure = "Trust the stored pixels with  --exif ignore" if rule == "transpose" else "Apply it with  --exif transpose"
    raise RejectError("size_mismatch", f"{found} The file carries an EXIF rotation. {cure}")


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
    from pseudolabel.rle import from_segmentation

    bbox_xywh = clip_xywh(check_xywh(cell["bbox_xywh"]), size_hw)
    if cell["segmentation"] is not None:  # not looked at for labelling; only that it can be painted on this image
        from_segmentation(json.loads(cell["segmentation"]), size_hw)
    return {**cell, "bbox_xywh": list(bbox_xywh)}


def _rejected_object(row: Row, cell: Row, error: RejectError) -> Row:
    return {
        "image_key": row["image_key"],
        "image_id": row["image_id"],
        "annotation_id": cell["annotation_id"],
        **records.rejected("shard", error.reason, error.detail),
    }
