"""Boxes that a promptable model is asked about, and candidates of what it answers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa

from pseudolabel.candidates import Candidate, ManifestImage

if TYPE_CHECKING:
    from pseudolabel.prompted.base import PromptedMask


@dataclass(frozen=True, slots=True)
class Asked:
    """A box that a mask is wanted for: of a given object, or of another source's candidate."""

    annotation_id: int | None
    category_id: int | None
    box_xyxy: tuple[float, ...]
    sure: float = 1.0  # that there is an object


def given_boxes(image: ManifestImage) -> list[Asked]:
    """The boxes of the manifest that stand for one object."""
    return [Asked(one.annotation_id, one.category_id, one.box_xyxy) for one in image.objects]


def boxes_of_candidates(candidates: pa.Table) -> dict[str, list[Asked]]:
    """The boxes of another source's candidates, by image; those without an area are left out."""
    columns = ["image_key", "status", "category_id", "box_xyxy", "box_score"]
    found: dict[str, list[Asked]] = {}
    for row in candidates.select(columns).to_pylist():
        if row["status"] != "ok" or not _has_area(row["box_xyxy"]):
            continue
        asked = Asked(None, row["category_id"], tuple(row["box_xyxy"]), row["box_score"])
        found.setdefault(row["image_key"], []).append(asked)
    return found


def prompted_candidate(asked: Asked, found: "PromptedMask", source: str) -> Candidate:
    """An answer; of a box that was not given, the score is also that there is an object at all."""
    return Candidate(
        source=source,
        annotation_id=asked.annotation_id,
        category_id=asked.category_id,
        box_xyxy=found.reach_xyxy,
        box_score=found.box_score * asked.sure,
        box_iou=None if asked.annotation_id is None else found.box_iou,
        mask=found.mask,
    )


def _has_area(box_xyxy: Sequence[float]) -> bool:
    return box_xyxy[2] > box_xyxy[0] and box_xyxy[3] > box_xyxy[1]
