"""Tables for the tests of `fuse`, and the stage run on them."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pseudolabel import records
from pseudolabel.datasets.manifest import image_row
from pseudolabel.masks import Grid, SoftMask
from pseudolabel.pipelines.options.stages.fuse import FuseConfig
from pseudolabel.pipelines.planning.plan import PlanRequest, write_plan
from pseudolabel.pipelines.run.commit import Footer
from pseudolabel.pipelines.run.paths import RunPaths
from pseudolabel.pipelines.stage import Shard
from pseudolabel.pipelines.stages.fuse import FuseStage

Row = dict[str, Any]
SIZE_HW = (60, 80)
TABLE = "0"  # under which the first table of candidates lies; its rows call their source otherwise
FOOTER = Footer("infer-teacher", 1, "0", 0, 1, 1, 1, 0, learned_from={TABLE: 2})
BOX = (10.0, 20.0, 40.0, 30.0)  # x, y, width, height


def ellipse(box_xywh: tuple[float, ...], *, shrink: float = 1.0) -> SoftMask:
    """A certain ellipse that touches the sides of its box, one cell per pixel."""
    x, y, width, height = box_xywh
    rows = (np.arange(int(height)) + 0.5) / height * 2 - 1
    columns = (np.arange(int(width)) + 0.5) / width * 2 - 1
    inside = rows[:, None] ** 2 + columns[None, :] ** 2 <= shrink
    return SoftMask(Grid(x, y, 1.0, 1.0, int(height), int(width)), (inside * 255).astype(np.uint8))


def candidate(
    key: str = "a.png",
    annotation_id: int | None = 1,
    *,
    mask: SoftMask | None = None,
    source: str = "teacher",
    category_id: int | None = 3,
    box_score: float = 0.9,
    box_iou: float | None = 0.95,
    box_xywh: tuple[float, ...] = BOX,
    knows_class: bool | None = None,
) -> Row:
    x, y, width, height = box_xywh
    return {
        "image_key": key, "annotation_id": annotation_id, "source": source, "category_id": category_id,
        "box_xyxy": [x, y, x + width, y + height], "box_score": box_score, "box_iou": box_iou,
        "mask": records.soft_mask_to_struct(mask or ellipse(box_xywh)), "knows_class": knows_class,
        **records.ok("test"),
    }  # fmt: skip


def image(*objects: Row, key: str = "a.png", image_id: int = 1) -> Row:
    return image_row(key, image_id, file_name=key, size_hw=SIZE_HW, objects=list(objects))


def table(*rows: Row) -> pa.Table:
    return records.table_from_rows(list(rows), records.CANDIDATES)


def fuse(
    tmp_path: Path, images: list[Row], *tables: pa.Table, num_shards: int = 1, **options: Any
) -> dict[int | None, Row]:
    """All rows by annotation id, from as many shards as asked for."""
    run = RunPaths(tmp_path / "run")
    request = PlanRequest(tmp_path, "test", num_shards, "transpose", [{"id": 3, "name": "cat"}], {}, [])
    write_plan(run, request, images)
    stage = FuseStage(FuseConfig(**{"refine": "none", "score": "mqs"} | options), run)
    stage.setup("cpu")
    rows: list[Row] = []
    for shard in range(num_shards):
        mine = [row for i, row in enumerate(images) if i % num_shards == shard]
        keys = [row["image_key"] for row in mine]
        inputs = {"manifest": records.table_from_rows(mine, records.MANIFEST)}
        for number, one in enumerate(tables):
            kept = [row for row in one.to_pylist() if row["image_key"] in keys]
            part = records.table_from_rows(kept, records.CANDIDATES)
            inputs[f"candidates/{number}"] = part.replace_schema_metadata(one.schema.metadata)
        result = stage.run(Shard(shard, num_shards, tmp_path, "transpose"), inputs)
        assert result.schema == stage.schema
        rows += result.to_pylist()
    return {row["annotation_id"]: row for row in rows}
