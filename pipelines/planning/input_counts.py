"""How much a user has: images, boxes, and boxes of each category, before there is a run; and how crowded boxes are."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pseudolabel.boxes import overlapped, xywh_to_xyxy
from pseudolabel.pipelines.options.stages.shard import PlanConfig
from pseudolabel.pipelines.planning.make_plan import open_input
from pseudolabel.pipelines.planning.plan import PLAN_STAGE, Plan
from pseudolabel.pipelines.run.commit import read_part
from pseudolabel.pipelines.run.paths import RunPaths

_SHARDS_READ = 8  # of a plan, to say how many of its boxes are crowded


@dataclass(frozen=True, slots=True)
class InputCounts:
    """What the annotations say; images have not been opened."""

    images: int
    boxes: int  # crowds, too
    categories: Mapping[int, str]  # names by id
    boxes_of: Counter[int]  # by category id, without crowds
    crowded: int  # boxes that share area with another one of their image


def count_input(config: PlanConfig) -> InputCounts:
    """All of it, whatever `sample` says; what the reader refuses is left out.

    Raises:
        InputError: the images or annotations are missing or damaged.
    """
    _, dataset = open_input(config)
    images = boxes = crowded = 0
    boxes_of: Counter[int] = Counter()
    for row in dataset.rows():
        if row["status"] == "rejected":
            continue
        objects = row.get("objects") or ()
        images, boxes, crowded = images + 1, boxes + len(objects), crowded + crowded_objects(objects)
        boxes_of.update(one["category_id"] for one in objects if not one["iscrowd"])
    categories = {category["id"]: category["name"] for category in dataset.categories}
    return InputCounts(images, boxes, categories, boxes_of, crowded)


def crowded_objects(objects: Sequence[Mapping[str, Any]]) -> int:
    """How many `objects` of a row of `records.MANIFEST` share area with another one; a crowd's region is none."""
    boxes = [one["bbox_xywh"] for one in objects if not one["iscrowd"]]
    return int(overlapped(xywh_to_xyxy(np.asarray(boxes, np.float64))).sum()) if len(boxes) > 1 else 0


def planned_crowded(run: RunPaths, plan: Plan) -> int:
    """The same of a whole run, as its first shards have it: images go to shards by chance.

    Raises:
        InputError: a part of the plan is missing or damaged.
    """
    crowded = boxes = 0
    for shard in range(min(_SHARDS_READ, plan.num_shards)):
        for objects in read_part(run.part(PLAN_STAGE, shard, plan.num_shards), ["objects"])["objects"].to_pylist():
            crowded, boxes = crowded + crowded_objects(objects or ()), boxes + len(objects or ())
    return round(plan.n_objects * crowded / max(boxes, 1))
