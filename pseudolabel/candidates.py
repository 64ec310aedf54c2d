"""What goes in and out of every source of masks: the boxes that are given on an image, and candidates for them.

Tables hold both as rows (`records.MANIFEST`, `records.CANDIDATES`); this is the one place where a row becomes an object
and an object a row.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import pyarrow as pa
from jaxtyping import Float64

from pseudolabel.masks import SoftMask
from pseudolabel.records import soft_mask_from_struct, soft_mask_to_struct

COLORS = "colors"  # the source of masks made from box and colours alone, whichever stage made them
Box = tuple[float, float, float, float]
Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class GivenBox:
    """An object whose box is given (or, without boxes, agreed on by the candidates), or a crowd's region."""

    annotation_id: int | None
    category_id: int
    bbox_xywh: Box
    is_crowd: bool = False  # says nothing about single objects: nobody's candidate, and claims nothing from others
    segmentation: str | None = None  # JSON as the input had it; for crowds, `evaluate` and supervised references alone
    class_index: int | None = None  # in a network's list of classes; None where it does not know the category

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Self:
        """One of the `objects` of a row of `records.MANIFEST`."""
        x, y, width, height = row["bbox_xywh"]
        box = (float(x), float(y), float(width), float(height))
        return cls(row["annotation_id"], row["category_id"], box, row["iscrowd"], row["segmentation"])

    @classmethod
    def from_xyxy(cls, annotation_id: int | None, category_id: int, box_xyxy: Sequence[float]) -> Self:
        """A box by its corners."""
        left, top, right, bottom = (float(value) for value in box_xyxy)
        return cls(annotation_id, category_id, (left, top, right - left, bottom - top))

    @property
    def box_xyxy(self) -> Box:
        x, y, width, height = self.bbox_xywh
        return (x, y, x + width, y + height)

    @property
    def area_px(self) -> float:
        return self.bbox_xywh[2] * self.bbox_xywh[3]


@dataclass(frozen=True, slots=True)
class ManifestImage:
    """An image that can be worked on, with all that is given on it."""

    key: str
    file_name: str
    size_hw: tuple[int, int]
    boxes: tuple[GivenBox, ...]  # crowds, too
    image_id: int | None = None
    file_digest: str | None = None  # of the file as `shard` read it; None where nobody wrote it down

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Self:
        """A usable row of `records.MANIFEST`."""
        boxes = tuple(GivenBox.from_row(one) for one in row["objects"] or ())
        size_hw = (row["height"], row["width"])
        return cls(row["image_key"], row["file_name"], size_hw, boxes, row["image_id"], row.get("file_digest"))

    @property
    def objects(self) -> tuple[GivenBox, ...]:
        """The boxes that stand for one object each."""
        return tuple(box for box in self.boxes if not box.is_crowd)


def is_usable(row: Mapping[str, Any]) -> bool:
    """Whether a row of the manifest is an image that can be worked on: no rejected one, and no refused annotation."""
    return bool(row["status"] == "ok" and row["annotation_id"] is None)


def usable_images(manifest: pa.Table) -> list[ManifestImage]:
    """The images of a manifest that can be worked on, by image key."""
    columns = [
        "image_key",
        "image_id",
        "file_name",
        "width",
        "height",
        "file_digest",
        "status",
        "annotation_id",
        "objects",
    ]
    rows = filter(is_usable, manifest.select(columns).to_pylist())
    return sorted(map(ManifestImage.from_row, rows), key=lambda image: image.key)


def with_classes(boxes: Iterable[GivenBox], index_of: Mapping[int, int]) -> list[GivenBox]:
    """The boxes with their class in a network's list, by category id; a crowd has none."""
    return [replace(box, class_index=None if box.is_crowd else index_of.get(box.category_id)) for box in boxes]


@dataclass(frozen=True, slots=True)
class Candidate:
    """One mask that one source proposes; bound to an object where it was made from that object's box."""

    source: str
    annotation_id: int | None  # None where it may serve any object
    category_id: int | None
    box_xyxy: Box  # of the mask or of the detection
    box_score: float
    box_iou: float | None  # with the box of its object; None where it is bound to none
    mask: SoftMask
    knows_class: bool = False  # its probabilities are of the object's class against all others
    class_index: int | None = None  # in its network's list, until someone who knows both lists gives the category

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Self:
        """A row of `records.CANDIDATES` whose status is `ok`.

        Raises:
            ValueError: the mask's bytes do not fill its grid, or a score is no number of [0, 1].
        """
        return cls(
            source=row["source"],
            annotation_id=row["annotation_id"],
            category_id=row["category_id"],
            box_xyxy=tuple(row["box_xyxy"]),
            box_score=_share(row["box_score"], "box_score"),
            box_iou=None if row["box_iou"] is None else _share(row["box_iou"], "box_iou"),
            mask=soft_mask_from_struct(row["mask"]),
            knows_class=bool(row.get("knows_class")),
        )

    def to_row(self) -> Row:
        """The row, without image key and status."""
        return {
            "annotation_id": self.annotation_id,
            "source": self.source,
            "category_id": self.category_id,
            "box_xyxy": list(self.box_xyxy),
            "box_score": self.box_score,
            "box_iou": self.box_iou,
            "mask": soft_mask_to_struct(self.mask),
            "knows_class": self.knows_class,
        }


def candidates_by_image(tables: Sequence[pa.Table]) -> dict[str, list[Candidate]]:
    """The candidates that are there, by image, in the order of table and row.

    Raises:
        ValueError: a row is damaged; see `Candidate.from_row`.
    """
    found: dict[str, list[Candidate]] = {}
    for table in tables:
        for row in table.to_pylist():
            if row["status"] == "ok":
                found.setdefault(row["image_key"], []).append(Candidate.from_row(row))
    return found


def boxes_array(boxes: Sequence[GivenBox] | Sequence[Candidate]) -> Float64[np.ndarray, "n 4"]:
    """Left, top, right and bottom of every box."""
    return np.array([box.box_xyxy for box in boxes], dtype=np.float64).reshape(-1, 4)


def _share(value: float, name: str) -> float:
    if not 0 <= value <= 1:  # NaN fails too
        raise ValueError(f"{name} must lie in [0, 1], got {value}")
    return float(value)
