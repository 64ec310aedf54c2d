"""Small runs of drawn scenes whose pseudo labels are their true masks at half weight."""

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

from pseudolabel import records
from pseudolabel.pipelines.demo.scenes import write_dataset
from pseudolabel.pipelines.engines.base import EngineOptions
from pseudolabel.pipelines.planning.make_plan import PlanConfig, make_plan
from pseudolabel.pipelines.run.commit import Footer, commit_table
from pseudolabel.pipelines.run.paths import RunPaths
from pseudolabel.pipelines.runner import RunOptions, run_stage
from pseudolabel.pipelines.stages.shard import ShardConfig


def labelled_run(folder: Path, *, scenes: int = 4, bare: bool = False, without: Collection[int] = ()) -> RunPaths:
    """A run below `folder` beside its `data`, one object of it ignored.

    Args:
        bare: made from the images alone, so that neither ids nor categories were given.
        without: numbers of the images in which nothing was found.
    """
    data, run = folder / "data", RunPaths(folder / "run")
    write_dataset(data, scenes, 0, size_hw=(96, 96))
    boxes = None if bare else data / "boxes.json"
    make_plan(run, PlanConfig(images=str(data / "images"), annotations=boxes, shards=1))
    run_stage(run, "shard", ShardConfig(), RunOptions(EngineOptions(name="inline")))
    content = json.loads((data / "instances.json").read_text())
    keys = {row["id"]: row["file_name"] for row in content["images"] if row["id"] not in without}
    rows = [_row(one, keys[one["image_id"]], bare) for one in content["annotations"] if one["image_id"] in keys]
    footer = Footer("fuse", 1, "x", 0, 1, len(rows), len(rows), 0)
    commit_table(records.table_from_rows(rows, records.PSEUDO), run.part("pseudo", 0, 1), footer)
    return run


def _row(one: dict[str, Any], key: str, bare: bool) -> dict[str, Any]:
    return {
        "image_key": key,
        "annotation_id": None if bare else one["id"],
        "category_id": one["category_id"],
        "segmentation": one["segmentation"],
        "bbox_xywh": one["bbox"],
        "iscrowd": False,
        "score": 0.5,
        "decision": "ignore" if one["id"] == 1 else "keep",
        **records.ok("fuse"),
    }


def write_classes(run: RunPaths, classes: list[str]) -> None:
    """Label maps of a segmenter that has these classes, of which only the names are there."""
    rows = [{"image_key": "00000.jpg", "classes": classes, **records.ok("infer-semantic")}]
    table = records.table_from_rows(rows, records.SEMANTIC)
    commit_table(table, run.part("semantic", 0, 1), Footer("infer-semantic", 1, "x", 0, 1, 1, 1, 0))
