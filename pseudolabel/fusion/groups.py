"""Objects where no box is given: candidates of all sources that show the same thing, and their consensus box.

The consensus box then stands in for the given one, and everything else goes its usual way.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float32, Float64, UInt8

from pseudolabel.boxes import iou_matrix
from pseudolabel.candidates import Candidate, GivenBox
from pseudolabel.fusion.labels import LabelSettings, label_objects
from pseudolabel.fusion.score_model import ScoreModel
from pseudolabel.masks import PixelMask, SoftMask, resample
from pseudolabel.rle import decode_crop

SAME_CLASS_IOU = 0.5  # two masks of one class that overlap by this are one object
OTHER_CLASS_IOU = 0.7  # of two classes, by this
PART_SHARE = 0.85  # a mask of which this lies in a larger one of its class is a part of that
MAX_CANDIDATES = 300  # per image, by box score


@dataclass(frozen=True, slots=True)
class Group:
    """Candidates of one object, the one that founded the group first."""

    members: tuple[Candidate, ...]

    @property
    def category_id(self) -> int | None:
        """The class with the largest sum of box scores, None where no member knows one."""
        votes: dict[int, float] = defaultdict(float)
        for member in self.members:
            if member.category_id is not None:
                votes[member.category_id] += member.box_score
        return max(sorted(votes), key=votes.__getitem__) if votes else None

    @property
    def box_xyxy(self) -> Float64[np.ndarray, "4"]:
        """Mean of the members' boxes, weighted by their scores, source by source, so that many copies weigh as one."""
        sources = sorted({member.source for member in self.members})
        means = [_mean_box([m for m in self.members if m.source == source]) for source in sources]
        mean: Float64[np.ndarray, 4] = np.mean(means, axis=0)
        return mean


def label_groups(
    candidates: Sequence[Candidate],
    size_hw: tuple[int, int],
    settings: LabelSettings,
    calibration: ScoreModel | None = None,
    rgb: UInt8[np.ndarray, "H W 3"] | None = None,
) -> list[dict[str, Any]]:
    """Rows of the objects that the candidates agree on, best score first; their `annotation_id` is left empty.

    Candidates without a class support others; what no candidate can name is no object.
    """
    groups = [group for group in group_candidates(candidates) if group.category_id is not None]
    rows = []
    for number, group in enumerate(groups):
        target = _target(number, group)
        bound = [replace(member, annotation_id=number, box_iou=None) for member in group.members]
        rows += label_objects([target], bound, size_hw, settings, calibration, rgb)
    return _by_score(_without_repeats([row | {"annotation_id": None} for row in rows if row["sources"]]))


def group_candidates(candidates: Sequence[Candidate]) -> list[Group]:
    """Groups by mask IoU, in falling order of their founders' box scores.

    A candidate joins the founder that it overlaps most, provided that it is enough for their classes.
    """
    ordered = sorted(candidates, key=lambda c: (-c.box_score, c.source, c.box_xyxy))[:MAX_CANDIDATES]
    groups: list[list[Candidate]] = []
    for candidate in ordered:
        overlaps = [_joins(candidate, group[0]) for group in groups]
        if overlaps and max(overlaps) > 0:
            groups[int(np.argmax(overlaps))].append(candidate)
        else:
            groups.append([candidate])
    return [Group(tuple(members)) for members in groups]


def mask_iou(first: SoftMask, second: SoftMask) -> float:
    """IoU of two masks above one half, read on the first one's grid."""
    here = _binary(first)
    there = resample(_binary(second), second.grid, first.grid) > 0.5
    shared = float((here * there).sum()) * _cell_px(first)
    union = float(here.sum()) * _cell_px(first) + float(_binary(second).sum()) * _cell_px(second) - shared
    return shared / union if union > 0 else 0.0


def _joins(candidate: Candidate, founder: Candidate) -> float:
    """Mask IoU where it makes the two one object, else 0."""
    boxes = np.array([candidate.box_xyxy, founder.box_xyxy], dtype=np.float64)
    if iou_matrix(boxes[:1], boxes[1:])[0, 0] == 0:
        return 0.0
    same = candidate.category_id == founder.category_id or None in (candidate.category_id, founder.category_id)
    overlap = mask_iou(founder.mask, candidate.mask)
    return overlap if overlap >= (SAME_CLASS_IOU if same else OTHER_CLASS_IOU) else 0.0


def _mean_box(members: Sequence[Candidate]) -> Float64[np.ndarray, "4"]:
    weights = np.array([member.box_score for member in members]) + 1e-6
    boxes = np.array([member.box_xyxy for member in members], dtype=np.float64)
    mean: Float64[np.ndarray, 4] = weights @ boxes / weights.sum()
    return mean


def _target(number: int, group: Group) -> GivenBox:
    assert group.category_id is not None
    return GivenBox.from_xyxy(number, group.category_id, group.box_xyxy.tolist())


def _without_repeats(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of fused masks that show one object twice, or a part and the whole, the larger alone."""
    kept: list[tuple[dict[str, Any], PixelMask]] = []
    for row in sorted(rows, key=lambda row: (-row["area"], row["bbox_xywh"])):
        mask = decode_crop(row["segmentation"])
        if not any(_repeats(row, mask, other, seen) for other, seen in kept):
            kept.append((row, mask))
    return [row for row, _ in kept]


def _repeats(row: dict[str, Any], mask: PixelMask, other: dict[str, Any], seen: PixelMask) -> bool:
    shared = _shared_px(mask, seen)
    iou = shared / max(row["area"] + other["area"] - shared, 1)
    if row["category_id"] != other["category_id"]:
        return bool(iou >= OTHER_CLASS_IOU)
    is_part: bool = shared >= PART_SHARE * row["area"]
    return bool(iou >= SAME_CLASS_IOU) or is_part


def _shared_px(first: PixelMask, second: PixelMask) -> int:
    x0, y0 = max(first.x0, second.x0), max(first.y0, second.y0)
    x1 = min(first.x0 + first.pixels.shape[1], second.x0 + second.pixels.shape[1])
    y1 = min(first.y0 + first.pixels.shape[0], second.y0 + second.pixels.shape[0])
    if x0 >= x1 or y0 >= y1:
        return 0
    parts = [m.pixels[y0 - m.y0 : y1 - m.y0, x0 - m.x0 : x1 - m.x0] for m in (first, second)]
    return int((parts[0] & parts[1]).sum())


def _by_score(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(rows, key=lambda row: (-row["score"], row["bbox_xywh"], row["category_id"]))


def _binary(mask: SoftMask) -> Float32[np.ndarray, "h w"]:
    return (mask.probability > 127).astype(np.float32)


def _cell_px(mask: SoftMask) -> float:
    return mask.grid.stride_x * mask.grid.stride_y
