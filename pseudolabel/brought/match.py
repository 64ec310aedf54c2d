"""Which object of the run a brought mask is for: by annotation id, else by the overlap of its extent with the box."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from scipy.optimize import linear_sum_assignment

from pseudolabel.boxes import iou_matrix
from pseudolabel.brought.base import Brought, KnownImage, KnownRun, Mask
from pseudolabel.brought.soft import extent_xyxy
from pseudolabel.candidates import GivenBox
from pseudolabel.datasets.own_ids import Key
from pseudolabel.errors import InputError

_SAME_CLASS = 1e-6  # decides between boxes that overlap alike


@dataclass(frozen=True, slots=True)
class Matched:
    """A mask with its image and, unless it is free, its object."""

    brought: Brought
    image: KnownImage
    target: GivenBox | None


@dataclass(frozen=True, slots=True)
class Matching:
    """What became of all masks; what is left out is named by where it stands, or by its id."""

    matched: list[Matched] = field(default_factory=list)
    by: str = "annotation id"
    foreign_ids: list[Key | None] = field(default_factory=list)
    foreign_images: list[str] = field(default_factory=list)
    without_box: list[str] = field(default_factory=list)  # no box of the image overlaps enough, or another was nearer


def match_masks(
    masks: Sequence[Brought], run: KnownRun, *, by: Literal["auto", "id", "box"] = "auto", min_iou: float
) -> Matching:
    """Every mask with its object: by annotation id where ids are meant, else by overlap.

    Where a run numbered its annotations anew, a file may have its ids (labels that were exported) or those of its
    source (masks of a program that was prompted with the same boxes). Those hold by which masks meet their boxes best.

    Args:
        by: `auto` looks whether ids are meant.
        min_iou: by overlap, pairs below it are none.

    Raises:
        InputError: a mask is damaged.
    """
    theirs = replace(run, by_object=run.by_source_id)
    is_theirs = bool(run.by_source_id) and _met(masks, theirs) > _met(masks, run)
    meant = theirs if is_theirs else run
    if by == "box" or (by == "auto" and not are_ids_meant(masks, meant)):
        return match_by_box(masks, run, min_iou=min_iou)
    found = match_by_id(masks, meant)
    return replace(found, by="annotation id of the source, which the run numbered anew") if is_theirs else found


def _met(masks: Sequence[Brought], run: KnownRun) -> float:
    """The sum of the masks' overlaps with the boxes that their ids name."""
    return sum(_overlap(one, run) for one in masks)


def _overlap(one: Brought, run: KnownRun) -> float:
    if one.annotation_id is None or not _names_its_object(one, run):
        return 0.0
    image, box = run.by_object[one.annotation_id]
    try:
        extent = _extent(one.paint(image.size_hw))
    except InputError:  # of another image's size; what is damaged is said where it is used
        return 0.0
    return float(iou_matrix(np.array([extent]), np.array([box.box_xyxy], dtype=np.float64))[0, 0])


def are_ids_meant(masks: Sequence[Brought], run: KnownRun) -> bool:
    """Whether the ids of a file are the run's: nothing else can be meant, or more than half of them name an object on
    the image that is named, too.

    Files number their own annotations from 1 as a rule, and such numbers happen to be there in every run.
    """
    if any(one.is_by_id for one in masks):
        return True
    return 2 * sum(_names_its_object(one, run) for one in masks) > len(masks)


def _names_its_object(one: Brought, run: KnownRun) -> bool:
    found = run.by_object.get(one.annotation_id) if one.annotation_id is not None else None
    return found is not None and (one.image is None or run.image(one.image) is found[0])


def match_by_id(masks: Sequence[Brought], run: KnownRun) -> Matching:
    """Each mask with the object of its id; free ones with their image alone."""
    result = Matching()
    for one in masks:
        if one.is_by_id and one.annotation_id is None and one.image is not None:
            image = run.image(one.image)
            if image is None:
                result.foreign_images.append(f"{one.where}: {one.image!r}")
            else:
                result.matched.append(Matched(one, image, None))
        elif one.annotation_id is not None and _names_its_object(one, run):
            result.matched.append(Matched(one, *run.by_object[one.annotation_id]))
        else:
            result.foreign_ids.append(one.annotation_id)
    return result


def match_by_box(masks: Sequence[Brought], run: KnownRun, *, min_iou: float) -> Matching:
    """Masks and boxes of each image one to one, so that the sum of their overlaps is largest.

    Args:
        min_iou: pairs below it are none.
    """
    result = Matching(by=f"overlap with the box (IoU of {min_iou:g} and more)")
    of_image: dict[str, list[Brought]] = defaultdict(list)
    for one in masks:
        image = run.image(one.image)
        if image is None:
            result.foreign_images.append(f"{one.where}: {one.image!r}")
        else:
            of_image[image.key].append(one)
    for key, several in of_image.items():
        _assign(several, run.images[key], min_iou, result)
    return result


def _assign(masks: Sequence[Brought], image: KnownImage, min_iou: float, result: Matching) -> None:
    extents = np.array([_extent(one.paint(image.size_hw)) for one in masks], dtype=np.float64).reshape(-1, 4)
    boxes = np.array([one.box_xyxy for one in image.objects], dtype=np.float64).reshape(-1, 4)
    overlap = iou_matrix(extents, boxes)
    same = [[one.category_id == box.category_id for box in image.objects] for one in masks]
    gain = np.where(overlap >= min_iou, overlap + _SAME_CLASS * np.array(same).reshape(overlap.shape), 0.0)
    pairs = zip(*linear_sum_assignment(gain, maximize=True), strict=True)
    chosen = {int(row): int(column) for row, column in pairs if gain[row, column] > 0}
    for place, one in enumerate(masks):
        if place in chosen:
            result.matched.append(Matched(one, image, image.objects[chosen[place]]))
        else:
            result.without_box.append(one.where)


def _extent(mask: Mask) -> tuple[float, float, float, float]:
    return extent_xyxy(mask) or (0.0, 0.0, 0.0, 0.0)
