"""How much a user has, before there is a run: images, boxes, and boxes of each category."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from pseudolabel.pipelines.options.stages.shard import PlanConfig
from pseudolabel.pipelines.planning.make_plan import open_input


@dataclass(frozen=True, slots=True)
class InputCounts:
    """What the annotations say; images have not been opened."""

    images: int
    boxes: int  # crowds, too
    categories: Mapping[int, str]  # names by id
    boxes_of: Counter[int]  # by category id, without crowds


def count_input(config: PlanConfig) -> InputCounts:
    """All of it, whatever `sample` says; what the reader refuses is left out.

    Raises:
        InputError: the images or annotations are missing or damaged.
    """
    _, dataset = open_input(config)
    images = boxes = 0
    boxes_of: Counter[int] = Counter()
    for row in dataset.rows():
        if row["status"] == "rejected":
            continue
        objects = row.get("objects") or ()
        images, boxes = images + 1, boxes + len(objects)
        boxes_of.update(one["category_id"] for one in objects if not one["iscrowd"])
    categories = {category["id"]: category["name"] for category in dataset.categories}
    return InputCounts(images, boxes, categories, boxes_of)
