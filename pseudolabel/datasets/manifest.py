"""Rows of the manifest as readers write them: images not yet opened, and what was refused."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pseudolabel import records
from pseudolabel.errors import RejectError

STAGE = "shard"  # readers work for this stage, so its name stands on their rows
Row = dict[str, Any]


def image_row(
    image_key: str,
    image_id: int,
    *,
    file_name: str,
    size_hw: tuple[int, int] | None,
    objects: list[Row],
    split: str | None = None,
    extra: str | None = None,
) -> Row:
    """An image that has not been opened yet, with what the source claims of it.

    Args:
        extra: what else the source says of it, as the JSON of an object; `extra_json` makes it.
    """
    height, width = size_hw or (None, None)
    return {
        "image_key": image_key,
        "image_id": image_id,
        "file_name": file_name,
        "width": width,
        "height": height,
        "exif_orientation": None,
        "split": split,
        "annotation_id": None,
        "objects": objects,
        "image_extra": extra,
        **records.ok(STAGE),
    }


def object_cell(
    annotation_id: int,
    category_id: int,
    bbox_xywh: Sequence[int | float],
    *,
    iscrowd: bool = False,
    segmentation: str | None = None,
    extra: str | None = None,
) -> Row:
    """One object in a row's `objects`; `extra` as in `image_row`."""
    return {
        "annotation_id": annotation_id,
        "category_id": category_id,
        "bbox_xywh": list(bbox_xywh),
        "iscrowd": iscrowd,
        "segmentation": segmentation,
        "extra": extra,
    }


def extra_json(values: Mapping[str, Any]) -> str | None:
    """What a source says beyond what the manifest has columns for, as one cell; None for nothing."""
    return json.dumps(values, ensure_ascii=False, separators=(",", ":")) if values else None


def polygons_json(polygons: Sequence[Sequence[float]]) -> str:
    """Polygons as a `segmentation` cell."""
    return json.dumps([list(polygon) for polygon in polygons], separators=(",", ":"))


def rejected_image(image_key: str, image_id: int | None, file_name: str | None, error: RejectError) -> Row:
    """An image that cannot be used."""
    return {
        "image_key": image_key,
        "image_id": image_id,
        "file_name": file_name,
        **records.rejected(STAGE, error.reason, error.detail),
    }


def rejected_annotation(image_key: str, image_id: int | None, annotation_id: int, error: RejectError) -> Row:
    """An annotation that cannot be used.

    Args:
        image_key: the image that it is on, or words for one that does not exist.
        image_id: as the annotation says, if it is a number.
        annotation_id: its id, or -1 minus its place in the file where it has no usable one (ids are never negative).
        error: why.
    """
    return {
        "image_key": image_key,
        "image_id": image_id,
        "annotation_id": annotation_id,
        **records.rejected(STAGE, error.reason, error.detail),
    }


def rejected_with_objects(
    image_key: str, image_id: int, file_name: str | None, annotation_ids: Sequence[int], error: RejectError
) -> Iterator[Row]:
    """An image that cannot be used, then each of its annotations, which cannot be used for that."""
    yield rejected_image(image_key, image_id, file_name, error)
    refused = RejectError("image_rejected", f"{error.reason}: {error.detail}")
    yield from (rejected_annotation(image_key, image_id, number, refused) for number in annotation_ids)


def stand_in_id(position: int) -> int:
    """The annotation id in a reject's row when the annotation has none that can be used."""
    return -1 - position
