"""Candidates as the tables hold them, and which of them may speak for which object of an image."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float64

from pseudolabel.boxes import iou_matrix
from pseudolabel.masks import SoftMask
from pseudolabel.records import soft_mask_from_struct

Box = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class Target:
    """An object whose box is given (or, without boxes, agreed on by the candidates)."""

    annotation_id: int | None
    category_id: int
    bbox_xywh: Box

    @property
    def box_xyxy(self) -> Box:
        x, y, width, height = self.bbox_xywh
        return (x, y, x + width, y + height)

    @property
    def area_px(self) -> float:
        return self.bbox_xywh[2] * self.bbox_xywh[3]


@dataclass(frozen=True, slots=True)
class Candidate:
    """One mask that one source proposes; bound to an object where it was made from that object's box."""

    source: str
    annotation_id: int | None
    category_id: int | None
    box_xyxy: Box
    box_score: float
    box_iou: float | None
    mask: SoftMask
    knows_class: bool = False  # its probabilities are of the object's class against all others


def candidate_from_row(row: Mapping[str, Any]) -> Candidate:
    """A row of `records.CANDIDATES` whose status is `ok`.

    Raises:
        ValueError: the mask's bytes do not fill its grid, or a score is no number of [0, 1].
    """
    return Candidate(
        source=row["source"],
        annotation_id=row["annotation_id"],
        category_id=row["category_id"],
        box_xyxy=tuple(row["box_xyxy"]),
        box_score=_share(row["box_score"], "box_score"),
        box_iou=None if row["box_iou"] is None else _share(row["box_iou"], "box_iou"),
        mask=soft_mask_from_struct(row["mask"]),
        knows_class=bool(row.get("knows_class")),
    )


def rows_by_image(tables: Sequence[pa.Table]) -> dict[str, list[dict[str, Any]]]:
    """The candidates that are there, by image, in the order of table and row."""
    rows: dict[str, list[dict[str, Any]]] = {}
    for table in tables:
        for row in table.to_pylist():
            if row["status"] == "ok":
                rows.setdefault(row["image_key"], []).append(row)
    return rows


def box_ious(targets: Sequence[Target], candidates: Sequence[Candidate]) -> Float64[np.ndarray, "n c"]:
    """IoU of every object's box with every candidate's; what a candidate's own row says about its object goes first."""
    if not targets or not candidates:
        return np.zeros((len(targets), len(candidates)))
    ious = iou_matrix(
        np.array([target.box_xyxy for target in targets], dtype=np.float64),
        np.array([candidate.box_xyxy for candidate in candidates], dtype=np.float64),
    )
    place = {target.annotation_id: i for i, target in enumerate(targets) if target.annotation_id is not None}
    for column, candidate in enumerate(candidates):
        if candidate.annotation_id in place and candidate.box_iou is not None:
            ious[place[candidate.annotation_id], column] = candidate.box_iou
    return ious


def may_serve(targets: Sequence[Target], candidates: Sequence[Candidate]) -> Bool[np.ndarray, "n c"]:
    """A bound candidate serves its own object alone, a free one every object of its class (any, where it has none)."""
    own: dict[int | None, list[int]] = defaultdict(list)
    of_class: dict[int | None, list[int]] = defaultdict(list)  # None: of any class
    for row, target in enumerate(targets):
        own[target.annotation_id].append(row)
        of_class[target.category_id].append(row)
        of_class[None].append(row)
    served = [of_class[c.category_id] if c.annotation_id is None else own[c.annotation_id] for c in candidates]
    allowed = np.zeros((len(targets), len(candidates)), dtype=bool)
    columns = np.repeat(np.arange(len(served)), [len(rows) for rows in served])
    allowed[[row for rows in served for row in rows], columns] = True
    return allowed


def _share(value: float, name: str) -> float:
    if not 0 <= value <= 1:  # NaN fails too
        raise ValueError(f"{name} must lie in [0, 1], got {value}")
    return float(value)
