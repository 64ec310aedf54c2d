"""Rows of the manifest as readers write them: images not yet opened, and what was refused."""

from collections.abc import Sequence
from typing import Any

from pseudolabel import records
from pseudolabel.errors import RejectError

STAGE = "shard"  # readers work for this stage, so its name stands on their rows


def image_row(
    image_key: str,
    image_id: int,
    *,
    file_name: str,
    size_hw: tuple[int, int] | None,
    objects: list[dict[str, Any]],
    split: str | None = None,
) -> dict[str, Any]:
    """An image that has not been opened yet, with what the source claims of it."""
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
        **records.ok(STAGE),
    }


def object_cell(
    annotation_id: int,
    category_id: int,
    bbox_xywh: Sequence[int | float],
    *,
    iscrowd: bool = False,
    segmentation: str | None = None,
) -> dict[str, Any]:
    """One object in a row's `objects`."""
    return {
        "annotation_id": annotation_id,
        "category_id": category_id,
        "bbox_xywh": list(bbox_xywh),
        "iscrowd": iscrowd,
        "segmentation": segmentation,
    }


def rejected_image(image_key: str, image_id: int | None, file_name: str | None, error: RejectError) -> dict[str, Any]:
    """An image that cannot be used."""
    return {
        "image_key": image_key,
        "image_id": image_id,
        "file_name": file_name,
        **records.rejected(STAGE, error.reason, error.detail),
    }


def rejected_annotation(image_key: str, image_id: int | None, annotation_id: int, error: RejectError) -> dict[str, Any]:
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


def stand_in_id(position: int) -> int:
    """The annotation id in a reject's row when the annotation has none that can be used."""
    return -1 - position
