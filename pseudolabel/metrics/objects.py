"""True objects and predicted masks, read from COCO files that nobody has checked."""

from collections import Counter
from collections.abc import Container, Mapping
from dataclasses import dataclass, replace
from typing import Any

from pseudolabel import rle
from pseudolabel.datasets.own_ids import id_key, numbered
from pseudolabel.errors import InputError, RejectError

Box = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class TrueObject:
    """One annotation of the ground truth.

    `area_px` counts the mask's pixels; `coco_area` is what the file says (of polygons, a fraction of a pixel apart),
    and what COCO's AP sorts into small, medium and large.
    """

    annotation_id: int
    image_id: int
    category_id: int
    mask: rle.Rle
    area_px: int
    coco_area: float
    box_xywh: Box
    is_crowd: bool


@dataclass(frozen=True, slots=True)
class Prediction:
    """One mask of a file that is to be measured; `source_box_xywh` is the box that it was made from, if it says so."""

    annotation_id: int
    image_id: int
    category_id: int
    mask: rle.Rle
    score: float
    source_box_xywh: Box | None


@dataclass(frozen=True, slots=True)
class Truth:
    """A ground-truth file: its objects, its images' sizes, its class names, and what could not be used."""

    objects: tuple[TrueObject, ...]
    sizes_hw: Mapping[int, tuple[int, int]]
    class_names: Mapping[int, str]
    left_out: Mapping[str, int]


def read_truth(content: Mapping[str, Any]) -> Truth:
    """The ground truth of a COCO file; annotations whose mask is missing, damaged or empty are left out and counted.

    Args:
        content: as `read_coco` gives it.
    """
    sizes_hw = {row["id"]: (row["height"], row["width"]) for row in content["images"]}
    left_out: Counter[str] = Counter()
    objects = []
    for row in content["annotations"]:
        try:
            objects.append(_true_object(row, sizes_hw))
        except RejectError as error:
            left_out[error.detail] += 1
    names = {row["id"]: row["name"] for row in content["categories"]}
    return Truth(tuple(objects), sizes_hw, names, dict(left_out))


def only_images(truth: Truth, images: Container[int]) -> Truth:
    """The truth of these images alone; objects on others are left out and counted."""
    objects = tuple(row for row in truth.objects if row.image_id in images)
    beside = len(truth.objects) - len(objects)
    return replace(truth, objects=objects, left_out={**truth.left_out, "an object on another image": beside})


def read_predictions(content: Mapping[str, Any], truth: Truth, *, where: str) -> list[Prediction]:
    """The masks of a COCO file over images of `truth`; crowds are skipped.

    Raises:
        InputError: a mask is damaged or has another size than its image, an image is not in the truth, or there is no
            score. A file that is to be measured has to be sound.
    """
    try:
        rows = content["annotations"]
        own = _own_numbers([{"id": row["attributes"]["own_id"]} for row in rows]) if _have_own_ids(rows) else None
        with_ids = rows if own is None else [row | {"id": number} for row, number in zip(rows, own, strict=True)]
        return [_prediction(row, truth) for row in with_ids if row.get("iscrowd") not in (1, "1")]
    except RejectError as error:
        raise InputError(f"{where}: {error.detail}") from None


def _true_object(row: Mapping[str, Any], sizes_hw: Mapping[int, tuple[int, int]]) -> TrueObject:
    if row["image_id"] not in sizes_hw:
        raise RejectError("no_such_image", "its image is not in the file")
    if not row.get("segmentation"):
        raise RejectError("bad_segmentation", "a box without a mask")
    mask = rle.from_segmentation(row["segmentation"], sizes_hw[row["image_id"]])
    area_px = rle.area(mask)
    return TrueObject(
        annotation_id=int(row["id"]),
        image_id=int(row["image_id"]),
        category_id=int(row["category_id"]),
        mask=mask,
        area_px=area_px,
        coco_area=float(area_px if row.get("area") is None else row["area"]),
        box_xywh=_box(row["bbox"]) if row.get("bbox") else rle.bbox_xywh(mask),
        is_crowd=row.get("iscrowd") in (1, "1"),
    )


def _prediction(row: Mapping[str, Any], truth: Truth) -> Prediction:
    name = f"annotation {row['id']}"
    if row["image_id"] not in truth.sizes_hw:
        raise RejectError("no_such_image", f"{name}: image {row['image_id']} is not in the ground truth")
    try:
        mask = rle.check_rle(row.get("segmentation"), truth.sizes_hw[row["image_id"]])
    except RejectError as error:
        raise RejectError(error.reason, f"{name}: {error.detail}") from None
    score = row.get("score")
    if score is None or not 0 <= score <= 1:
        raise RejectError("bad_annotation", f"{name}: the score is {score}, not in [0, 1]")
    source = (row.get("attributes") or {}).get("source_bbox")
    box = _source_box(source, name) if source else None
    return Prediction(int(row["id"]), int(row["image_id"]), int(row["category_id"]), mask, float(score), box)


def _source_box(text: Any, name: str) -> Box:
    try:
        return _box(text.split(","))
    except (AttributeError, ValueError):
        raise RejectError("bad_box", f"{name}: source_bbox is {text!a:.60}, expected four numbers") from None


def _own_numbers(rows: Any) -> list[int] | None:
    """The annotations' own ids, None where they are no numbers or not one of each."""
    return numbered([id_key(row.get("id")) for row in rows])


def _have_own_ids(rows: Any) -> bool:
    """Whether the run that a file is of had to number its annotations, and kept the ids that they had."""
    return bool(rows) and all("own_id" in row.get("attributes", {}) for row in rows)


def _box(values: Any) -> Box:
    x, y, width, height = (float(value) for value in values)
    return (x, y, width, height)
