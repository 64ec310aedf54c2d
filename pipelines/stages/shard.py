"""`shard`: every image of the plan opened once, its boxes checked against its true size."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast

import pyarrow as pa

from pseudolabel import records
from pseudolabel.config import option
from pseudolabel.errors import RejectError
from pseudolabel.pipelines.run.paths import RunPaths
from pseudolabel.pipelines.stage import Resources, Shard, StageConfig

if TYPE_CHECKING:
    from pseudolabel.images import ImageHeader

Row = dict[str, Any]


class ShardConfig(StageConfig):
    """Limits on what is opened. The rest of `shard`'s options belong to the plan."""

    max_pixels: int = option(120_000_000, "larger pictures are refused before they are decoded", ge=1, le=178_956_970)
    max_bytes: int = option(256 << 20, "larger image files are refused before they are read", ge=1, le=1 << 30)


class ShardStage:
    """Reads the plan, writes the manifest."""

    name: ClassVar[str] = "shard"
    version: ClassVar[int] = 2
    config_class: ClassVar[type[StageConfig]] = ShardConfig
    resources: ClassVar[Resources] = Resources(cpus=1)
    unit: ClassVar[Literal["image", "object"]] = "image"
    schema: ClassVar[pa.Schema] = records.MANIFEST
    writes: str = "manifest"

    def __init__(self, config: StageConfig, run: RunPaths) -> None:
        self.config = cast(ShardConfig, config)

    def reads(self) -> tuple[str, ...]:
        return ("plan",)

    def weights(self) -> Mapping[str, Path]:
        return {}

    def setup(self, device: str) -> None:
        """Nothing to load."""

    def run(self, shard: Shard, inputs: Mapping[str, pa.Table]) -> pa.Table:
        rows: list[Row] = []
        for row in inputs["plan"].to_pylist():
            rows += [row] if row["status"] == "rejected" else self._opened(row, shard)
        rows.sort(key=lambda row: (row["image_key"], row.get("annotation_id") is not None, row.get("annotation_id")))
        return records.table_from_rows(rows, records.MANIFEST)

    def finish(self, paths: list[Path]) -> None:
        """Nothing to export."""

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
            "detail": header.note or None,
        }
        yield from refusals

    def _header(self, row: Row, shard: Shard) -> "ImageHeader":
        """The header of an image that can be decoded and has the size that the annotations claim."""
        from pseudolabel.datasets.frame import check_frame
        from pseudolabel.images import check_decodes, read_file, read_header

        data = read_file(shard.images_root, row["file_name"], max_bytes=self.config.max_bytes)
        header = read_header(data, rule=shard.rule, max_pixels=self.config.max_pixels)
        boxes = [cell["bbox_xywh"] for cell in row["objects"] or ()]
        check_frame((row["height"], row["width"]), header, boxes, shard.rule.exif)
        check_decodes(data, rule=shard.rule, max_pixels=self.config.max_pixels)
        return header


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
    from pseudolabel.boxes import check_xywh, clip_xywh

    bbox_xywh = clip_xywh(check_xywh(cell["bbox_xywh"]), size_hw)
    return {**cell, "bbox_xywh": list(bbox_xywh), "segmentation": _paintable(cell["segmentation"], size_hw)}


def _paintable(segmentation: str | None, size_hw: tuple[int, int]) -> str | None:
    """A mask that can be painted on the image; else none, because labelling reads the box alone."""
    from pseudolabel.rle import from_segmentation

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
