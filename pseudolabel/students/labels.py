"""What a student learns from: images with their objects, out of a run's pseudo labels or any COCO file with scores.

Every object is one of three things, and none of them is background:

* `mask`: its mask trains, by its weight, and its box;
* `box`: its box alone trains (the fuse stage's `box_only`, or a mask below the threshold);
* `ignored`: nothing about its place is learned (`ignore`, and crowds).
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pseudolabel import rle
from pseudolabel.candidates import is_usable
from pseudolabel.datasets.coco_file import read_coco
from pseudolabel.errors import InputError, RejectError
from pseudolabel.masks import PixelMask, pixel_window
from pseudolabel.progress import tracked
from pseudolabel.students.config import LabelConfig

Role = Literal["mask", "box", "ignored"]
Row = Mapping[str, Any]

_ROLES: dict[str, Role] = {"keep": "mask", "box_only": "box", "review": "mask", "ignore": "ignored"}
_FEW = 20  # objects: of fewer no share is asked
_LEAST_SIDE_PX = 1.0


@dataclass(frozen=True, slots=True)
class LabelledObject:
    """One object; its box in pixels of the image."""

    label: int  # place of its category in `LabelSet.categories`
    box_xyxy: tuple[float, float, float, float]
    role: Role
    weight: float = 1.0
    mask: rle.Rle | None = None
    unsure: rle.Rle | None = None  # pixels at which the mask trains nothing


@dataclass(frozen=True, slots=True)
class LabelledImage:
    """One image with all that is known of it."""

    file_name: str
    image_id: int
    size_hw: tuple[int, int]
    objects: tuple[LabelledObject, ...]


@dataclass(frozen=True, slots=True)
class LabelSet:
    """Images to train on, and the classes by their place."""

    categories: tuple[dict[str, Any], ...]
    images: tuple[LabelledImage, ...]

    def counts(self) -> dict[str, int]:
        """Images, and objects by role."""
        roles = [one.role for image in self.images for one in image.objects]
        return {"images": len(self.images)} | {role: roles.count(role) for role in ("mask", "box", "ignored")}

    def __str__(self) -> str:
        """`40 images, 380 masks of weight 0.81 on average, 6 boxes alone, 2 ignored`."""
        counts = self.counts()
        weights = [one.weight for image in self.images for one in image.objects if one.role == "mask"]
        mean = f" of weight {sum(weights) / len(weights):.2f} on average" if weights else ""
        told = f"{counts['images']} images, {counts['mask']} masks{mean}, {counts['box']} boxes alone"
        return told + (f", {counts['ignored']} ignored" if counts["ignored"] else "")


def check_masks(labels: LabelSet, config: LabelConfig) -> None:
    """That enough of the objects have a mask to learn masks from.

    Raises:
        InputError: the share is below `least_mask_share`, and there are more than a handful of objects.
    """
    counts = labels.counts()
    objects = counts["mask"] + counts["box"]
    if objects >= _FEW and counts["mask"] < config.least_mask_share * objects:
        raise InputError(
            f"only {counts['mask']} of {objects} objects have a mask to learn from, the others their box alone: "
            "look at the decisions (pseudolabel status RUN), add a source to fuse, or say --least-mask-share 0"
        )


def labels_from_rows(
    manifest: Iterable[Row], pseudo: Iterable[Row], categories: Iterable[Row], config: LabelConfig
) -> LabelSet:
    """The labels of a run's tables, images in the order of their keys.

    Args:
        manifest: rows of `records.MANIFEST`; only usable images are trained on.
        pseudo: rows of `records.PSEUDO`.

    Raises:
        InputError: nothing can be learned from, a category is unknown, or a mask is damaged.
    """
    places, kept = _places(categories)
    objects = defaultdict(list)
    for row in pseudo:
        if row["status"] == "ok":
            objects[row["image_key"]].append(row)
    images = []
    usable = sorted(filter(is_usable, manifest), key=lambda row: str(row["image_key"]))
    for number, row in enumerate(tracked(usable, "labels", unit="image"), start=1):
        size_hw = (row["height"], row["width"])
        name = f"image {row['file_name']}"
        found = [_from_pseudo(one, size_hw, places, config, name) for one in objects[row["image_key"]]]
        image_id = row["image_id"] if row["image_id"] is not None else number
        images.append(LabelledImage(row["file_name"], image_id, size_hw, tuple(one for one in found if one)))
    return _checked(LabelSet(kept, tuple(images)), "the run")


def labels_from_coco(path: Path, config: LabelConfig) -> LabelSet:
    """The labels of a COCO file; scores and decisions may stand in annotations or in their `attributes`.

    Raises:
        InputError: the file or an annotation is damaged, or nothing can be learned from.
    """
    return _checked(_from_content(read_coco(path), config, str(path)), str(path))


def _from_content(content: Row, config: LabelConfig, where: str) -> LabelSet:
    places, kept = _places(content["categories"])
    objects = defaultdict(list)
    known = {row["id"] for row in content["images"]}
    for row in content["annotations"]:
        if row["image_id"] not in known:
            raise InputError(f"{where}, annotation {row['id']}: image {row['image_id']} is not in the file")
        objects[row["image_id"]].append(row)
    images = []
    for row in tracked(sorted(content["images"], key=lambda row: int(row["id"])), "labels", unit="image"):
        if "file_name" not in row:
            raise InputError(f"{where}, image {row['id']}: has no file_name")
        size_hw = (row["height"], row["width"])
        name = f"{where}, image {row['file_name']}"
        rows = [_as_pseudo(one, size_hw, name) for one in objects[row["id"]]]
        found = [_from_pseudo(one, size_hw, places, config, name) for one in rows]
        images.append(LabelledImage(row["file_name"], row["id"], size_hw, tuple(one for one in found if one)))
    return LabelSet(kept, tuple(images))


def _as_pseudo(row: Row, size_hw: tuple[int, int], name: str) -> Row:
    """A COCO annotation with the names of a row of pseudo labels."""
    extras = {**(row.get("attributes") or {}), **row}
    segmentation = row.get("segmentation") or None
    try:
        mask = rle.from_segmentation(segmentation, size_hw) if segmentation else None
    except RejectError as error:
        raise InputError(f"{name}, annotation {row.get('id')}: {error.detail}") from None
    if extras.get("decision", "keep") not in _ROLES:
        raise InputError(f"{name}, annotation {row['id']}: decision is {extras['decision']!a:.60}")
    for column in ("score", "calibrated_iou"):
        if not isinstance(extras.get(column, 1.0), int | float | None):
            raise InputError(f"{name}, annotation {row['id']}: {column} is {extras[column]!a:.60}, no number")
    return {
        "annotation_id": row.get("id"),
        "category_id": row["category_id"],
        "segmentation": mask,
        "bbox_xywh": row.get("bbox") or (list(rle.bbox_xywh(mask)) if mask else None),
        "source_bbox_xywh": None,
        "iscrowd": bool(row.get("iscrowd")),
        "score": extras.get("score", 1.0),
        "calibrated_iou": extras.get("calibrated_iou"),
        "decision": extras.get("decision", "keep"),
    }


def _from_pseudo(
    row: Row, size_hw: tuple[int, int], places: Mapping[int, int], config: LabelConfig, name: str
) -> LabelledObject | None:
    """The object of a row, None where its box shows no pixel of the image."""
    if row["category_id"] not in places:
        raise InputError(f"{name}, annotation {row['annotation_id']}: category {row['category_id']} is not declared")
    box = _clipped(row["source_bbox_xywh"] or row["bbox_xywh"], size_hw)
    if box is None:
        return None
    mask = _checked_rle(row, "segmentation", size_hw, name)
    role: Role = "ignored" if row["iscrowd"] else _ROLES[row["decision"] or "keep"]
    if row["decision"] == "review" and not config.review_masks:
        role = "box"
    score = row["score"] if row["calibrated_iou"] is None else row["calibrated_iou"]
    if role == "mask" and not config.given_masks:
        mask = _filled(box, size_hw)
    if role == "mask" and (mask is None or score is None or score < config.mask_threshold):
        role = "box"
    weight = float(score) if config.mask_weight == "score" and role == "mask" else 1.0
    if not 0 <= weight <= 1:
        raise InputError(f"{name}, annotation {row['annotation_id']}: the score is {weight}, not in [0, 1]")
    needed, unsure = _needed(mask, role, crowd=row["iscrowd"]), None
    if role == "mask" and config.given_masks and config.unsure == "left_out":
        unsure = _checked_rle(row, "unsure", size_hw, name)
    return LabelledObject(places[row["category_id"]], box, role, weight, needed, unsure)


def _needed(mask: rle.Rle | None, role: Role, *, crowd: bool) -> rle.Rle | None:
    """A mask that is used: one that trains, or the region of a crowd; of an ignored object the whole box is unsure."""
    return mask if role == "mask" or (role == "ignored" and crowd) else None


def _checked_rle(row: Row, column: str, size_hw: tuple[int, int], name: str) -> rle.Rle | None:
    """The mask in a column, None where there is none or it is empty; parts of old lack the column of unsure pixels."""
    if row.get(column) is None:
        return None
    try:
        mask = rle.check_rle(dict(row[column]), size_hw)
    except RejectError as error:
        raise InputError(f"{name}, annotation {row['annotation_id']}: {error.detail}") from None
    return mask if rle.area(mask) else None


def _filled(box: tuple[float, float, float, float], size_hw: tuple[int, int]) -> rle.Rle:
    import numpy as np

    window = pixel_window(box, size_hw)
    pixels = np.ones((window.height, window.width), dtype=np.bool_)
    return rle.encode_crop(PixelMask(int(window.x0), int(window.y0), pixels), size_hw)


def _clipped(box_xywh: Iterable[float] | None, size_hw: tuple[int, int]) -> tuple[float, float, float, float] | None:
    """The corners within the image, None where less than a pixel is left of a side."""
    if box_xywh is None:
        return None
    x, y, width, height = (float(value) for value in box_xywh)
    x0, y0 = max(x, 0.0), max(y, 0.0)
    x1, y1 = min(x + width, float(size_hw[1])), min(y + height, float(size_hw[0]))
    return (x0, y0, x1, y1) if min(x1 - x0, y1 - y0) >= _LEAST_SIDE_PX else None


def _places(categories: Iterable[Row]) -> tuple[dict[int, int], tuple[dict[str, Any], ...]]:
    kept = tuple(
        {"id": int(row["id"]), "name": str(row["name"])} for row in sorted(categories, key=lambda r: int(r["id"]))
    )
    return {row["id"]: place for place, row in enumerate(kept)}, kept


def _checked(labels: LabelSet, where: str) -> LabelSet:
    if not any(one.role != "ignored" for image in labels.images for one in image.objects):
        raise InputError(f"{where}: no object to learn from in {len(labels.images)} images")
    return labels
