"""Masks that people accepted or corrected, as audited truth about what `fuse` makes without them."""

from collections.abc import Iterator
from dataclasses import astuple
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pseudolabel.config import parse_config
from pseudolabel.metrics.mask_iou import rle_iou
from pseudolabel.pipelines.options.stages.fuse import FuseConfig
from pseudolabel.pipelines.planning.plan import Plan, read_plan
from pseudolabel.pipelines.review.reviewed import TABLE, bring_in_reviews
from pseudolabel.pipelines.run.commit import read_footer, read_part
from pseudolabel.pipelines.run.conservation import without_object_masks
from pseudolabel.pipelines.run.paths import RunPaths
from pseudolabel.pipelines.stage import Shard
from pseudolabel.pipelines.stages.fuse import FuseStage

Row = dict[str, Any]
# The IoU that an answer says of a mask at most: people let masks of 0.9 and more pass, so that one which was left as it
# is, or nearly so, is not known to be exact.
PASSED_IOU = 0.95


def reviewed_pairs(run: RunPaths) -> Iterator[tuple[Row, float]]:
    """Rows of pseudo labels as `fuse` makes them without any answer, and their IoU with the mask that a person left.

    No IoU is above `PASSED_IOU`.

    The images with such masks are fused again here, by the options of the run's own `fuse`: the table `pseudo` may hold
    the answers already. Answers without a mask (box only, no object) say nothing that an IoU could be made of.
    """
    bring_in_reviews(run)
    plan = read_plan(run)
    if not run.table(TABLE).is_dir():
        return
    stage = _stage(run, plan)
    for shard in range(plan.num_shards):
        answers = read_part(run.part(TABLE, shard, plan.num_shards))
        masks = {
            (row["image_key"], row["annotation_id"]): row["segmentation"]
            for row in answers.filter(pc.is_valid(answers["segmentation"])).to_pylist()
        }
        for row in _fused_again(stage, run, plan, shard, {key for key, _ in masks}) if masks else ():
            mask = masks.get((row["image_key"], row["annotation_id"]))
            if mask is not None and row["status"] == "ok" and row["decision"] != "box_only":
                yield row, min(rle_iou(row["segmentation"], mask), PASSED_IOU)


def _stage(run: RunPaths, plan: Plan) -> FuseStage:
    config = parse_config(FuseConfig, read_footer(run.part("pseudo", 0, plan.num_shards)).config, where="fuse")
    stage = FuseStage(config, run)
    stage.setup("cpu")
    return stage


def _fused_again(stage: FuseStage, run: RunPaths, plan: Plan, shard: int, keys: set[str]) -> list[Row]:
    """The pseudo labels of some images, whatever was answered about them."""
    names = [name for name in stage.reads() if name != TABLE]
    tables = {name: _of_images(run.part(name, shard, plan.num_shards), keys) for name in names}
    tables["manifest"] = without_object_masks(tables["manifest"])
    rows: list[Row] = stage.run(
        Shard(shard, plan.num_shards, plan.images_root, *astuple(plan.pixel_rule)), tables
    ).to_pylist()
    return rows


def _of_images(part: Path, keys: set[str]) -> pa.Table:
    table = read_part(part)
    return table.filter(pc.is_in(table["image_key"], pa.array(sorted(keys))))
