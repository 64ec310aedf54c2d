"""The images of a run that can be trained on, and the boxes that teachers learn from."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import UInt8

from pseudolabel.candidates import Box, GivenBox, ManifestImage, is_usable
from pseudolabel.errors import InputError, RejectError
from pseudolabel.images import load_image
from pseudolabel.pipelines.planning.plan import Plan
from pseudolabel.pipelines.run.commit import read_part
from pseudolabel.pipelines.run.paths import RunPaths

Row = dict[str, Any]
_NAMED = 5  # boxes that a message shows before it counts the rest


@dataclass(frozen=True, slots=True)
class BoxedImage:
    """An image of the run with its boxes."""

    key: str
    shard: int
    file_name: str
    size_hw: tuple[int, int]
    objects: tuple[GivenBox, ...]

    @property
    def boxes_xyxy(self) -> list[Box]:
        return [one.box_xyxy for one in self.objects]

    @property
    def category_ids(self) -> list[int]:
        return [one.category_id for one in self.objects]


def table_rows(run: RunPaths, plan: Plan, table: str) -> Iterator[Row]:
    """All rows of a table, shard by shard."""
    for shard in range(plan.num_shards):
        yield from read_part(run.part(table, shard, plan.num_shards)).to_pylist()


def usable_images(run: RunPaths, plan: Plan) -> Iterator[tuple[int, Row]]:
    """The manifest's rows of images that can be read, each with its shard, in the order of shards and keys."""
    for shard in range(plan.num_shards):
        rows = read_part(run.part("manifest", shard, plan.num_shards)).to_pylist()
        yield from ((shard, row) for row in sorted(filter(is_usable, rows), key=lambda row: str(row["image_key"])))


def boxed_images(run: RunPaths, plan: Plan, learned: Callable[[GivenBox], bool] = lambda _: True) -> list[BoxedImage]:
    """Usable images with at least one box that is no crowd and is to be learned from.

    Raises:
        InputError: there is none.
    """
    images = [_boxed(shard, row, learned) for shard, row in usable_images(run, plan)]
    found = [image for image in images if image.objects]
    if not found:
        raise InputError(f"{plan.source}: no box to learn from")
    return found


def _boxed(shard: int, row: Row, learned: Callable[[GivenBox], bool]) -> BoxedImage:
    image = ManifestImage.from_row(row)
    kept = tuple(box for box in image.objects if learned(box))
    return BoxedImage(image.key, shard, image.file_name, image.size_hw, kept)


def load_pixels(plan: Plan, file_name: str) -> UInt8[np.ndarray, "h w 3"]:
    """An image that `shard` could read.

    Raises:
        InputError: it cannot be read any more.
    """
    try:
        return load_image(plan.images_root, file_name, rule=plan.pixel_rule)
    except RejectError as error:
        raise InputError(f"{file_name}: {error}; it was sound when `shard` read it") from None


def check_boxes(images: Sequence[BoxedImage]) -> None:
    """Pass if every box can be learned from.

    Raises:
        InputError: names the first few that cannot, by image and annotation, and counts the rest.
    """
    problems = [
        f"{image.file_name}: the box of annotation {target.annotation_id} {what}: {list(target.box_xyxy)}"
        for image in images
        for target in image.objects
        if (what := _box_problem(target.box_xyxy, image.size_hw))
    ]
    if problems:
        rest = f" (and {len(problems) - _NAMED} more)" if len(problems) > _NAMED else ""
        raise InputError("; ".join(problems[:_NAMED]) + rest)


def _box_problem(box_xyxy: Box, size_hw: tuple[int, int]) -> str | None:
    left, top, right, bottom = box_xyxy
    if not all(math.isfinite(value) for value in box_xyxy):
        return "is not finite"
    if right <= left or bottom <= top:
        return "has no area"
    if right <= 0 or bottom <= 0 or left >= size_hw[1] or top >= size_hw[0]:
        return f"lies off the image of {size_hw[1]}x{size_hw[0]} px"
    return None
