"""The images of a run with the boxes that teachers learn from, checked before any training starts."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from pseudolabel.errors import InputError
from pseudolabel.pipelines.run.commit import read_part
from pseudolabel.pipelines.run.paths import RunPaths
from pseudolabel.pipelines.run.plan import Plan

_NAMED = 5  # boxes that a message shows before it counts the rest


@dataclass(frozen=True, slots=True)
class BoxedImage:
    """An image of the run with its boxes and their classes' indices."""

    file_name: str
    height: int
    boxes_xyxy: list[list[float]]
    labels: list[int]
    width: int
    annotation_ids: list[int]
    segmentations: list[str | None]  # JSON; read only where true masks are asked for


def boxed_images(run: RunPaths, plan: Plan, classes: Sequence[int]) -> list[BoxedImage]:
    """Usable images with at least one box that is no crowd, in the order of shards and keys.

    Raises:
        InputError: there is none, or a box has no area, is not finite or lies off its image.
    """
    index = {category: place for place, category in enumerate(classes)}
    found = []
    for shard in range(plan.num_shards):
        rows = read_part(run.part("manifest", shard, plan.num_shards)).to_pylist()
        for row in sorted(rows, key=lambda row: str(row["image_key"])):
            if row["status"] != "ok" or row["annotation_id"] is not None:
                continue
            objects = [one for one in row["objects"] or () if not one["iscrowd"]]
            if objects:
                boxes = [_xyxy(one["bbox_xywh"]) for one in objects]
                labels = [index[one["category_id"]] for one in objects]
                ids = [one["annotation_id"] for one in objects]
                masks = [one["segmentation"] for one in objects]
                found.append(BoxedImage(row["file_name"], row["height"], boxes, labels, row["width"], ids, masks))
    if not found:
        raise InputError(f"{plan.source}: no box to learn from")
    check_boxes(found)
    return found


def check_boxes(images: Sequence[BoxedImage]) -> None:
    """Pass if every box can be learned from.

    Raises:
        InputError: names the first few that cannot, by image and annotation, and counts the rest.
    """
    problems = [
        f"{image.file_name}: the box of annotation {number} {what}: {box}"
        for image in images
        for number, box in zip(image.annotation_ids, image.boxes_xyxy, strict=True)
        if (what := _box_problem(box, image))
    ]
    if problems:
        rest = f" (and {len(problems) - _NAMED} more)" if len(problems) > _NAMED else ""
        raise InputError("; ".join(problems[:_NAMED]) + rest)


def _box_problem(box_xyxy: Sequence[float], image: BoxedImage) -> str | None:
    left, top, right, bottom = box_xyxy
    if not all(math.isfinite(value) for value in box_xyxy):
        return "is not finite"
    if right <= left or bottom <= top:
        return "has no area"
    if right <= 0 or bottom <= 0 or left >= image.width or top >= image.height:
        return f"lies off the image of {image.width}x{image.height} px"
    return None


def _xyxy(bbox: Sequence[float]) -> list[float]:
    x, y, width, height = bbox
    return [float(x), float(y), float(x + width), float(y + height)]
