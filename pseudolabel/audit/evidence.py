"""What a segmenter's label map and fused masks show against given boxes.

A label map says the class of every cell, whatever the boxes say; `Evidence` reads it in cells. Other objects' boxes are
always left out of it: what lies in them is explained by them. It sees no small objects: of errors planted in coco-dev,
what it said of boxes below 0.05 of the image's longer side was right in 3 of 24 cases, and in 24 of 73 above 0.15. So
it is not asked of the former, and its word on the others counts the less the smaller they are.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, UInt8
from scipy import ndimage

from pseudolabel.audit.issues import Box, GivenObject, Issue

_WEAK = 0.5  # of issues that are wrong more often than not, so that the surer kinds come first
_SMALL, _LARGE = 0.05, 0.15  # a box's side in longer sides of its image: nothing is told below the first
_SURE = 160  # of 255: a cell that is less sure says nothing
_GAP = 0.12  # of a side, between box and what the segmenter sees of its class
_LEAST_FILL = 0.15  # of a box that this has to be
_BEYOND_DEPTH = 0.15  # of a side: how far outside a box one looks
_BEYOND_SHARE = 0.6
_GROWN = 0.1  # of a side: less is what is left between a box and the edge of its image
_CORE = 0.7  # of a box's sides: where its own class should be
_LEAST_LEFT = 0.3  # of that core that no other box explains
_OTHER_SHARE, _OWN_SHARE = 0.6, 0.1
_NEAR, _LEAST_WITHIN = 1.3, 0.5  # of a box's sides; of a class's region, the rest being surroundings
_UNKNOWN_SHARE = 0.7  # of a box whose own class the segmenter does not know
_MISSING_SHARE = 0.003  # of the image
_MISSING_FREE = 0.7  # of a region that lies in no box


@dataclass(frozen=True, slots=True)
class Evidence:
    """A label map over an image: class index and confidence (255 = certain) of every cell.

    Args:
        index_of: class index by category id, of the categories that the segmenter knows.
        names: class name by index; 0, the background, is no object.
        size_hw: of the image in pixels.
    """

    label_map: UInt8[np.ndarray, "h w"]
    confidence: UInt8[np.ndarray, "h w"]
    index_of: Mapping[int, int]
    names: Sequence[str]
    size_hw: tuple[int, int]

    def cells(self, box: Sequence[float]) -> tuple[slice, slice]:
        """The cells that a box in pixels touches."""
        rows, columns = self.label_map.shape
        left, right = (side * columns / self.size_hw[1] for side in (box[0], box[2]))
        top, bottom = (side * rows / self.size_hw[0] for side in (box[1], box[3]))
        return _span(top, bottom, rows), _span(left, right, columns)

    def pixels(self, cells: tuple[slice, slice]) -> Box:
        """A rectangle of cells as a box in pixels."""
        step_y, step_x = self.size_hw[0] / self.label_map.shape[0], self.size_hw[1] / self.label_map.shape[1]
        rows, columns = cells
        return (columns.start * step_x, rows.start * step_y, columns.stop * step_x, rows.stop * step_y)

    def sure(self, index: int) -> Bool[np.ndarray, "h w"]:
        """Where the class is told with some confidence."""
        sure: Bool[np.ndarray, "h w"] = (self.label_map == index) & (self.confidence >= _SURE)
        return sure


def too_tight(one: GivenObject, others: Sequence[GivenObject], evidence: Evidence) -> Iterator[Issue]:
    """A box beyond a side of which its object goes on, by `_GROWN` of its length or more."""
    index, weight = evidence.index_of.get(one.category_id), _size_weight(one.box_xyxy, evidence.size_hw)
    if index is None or not weight:
        return
    own = evidence.sure(index) & ~_covered([box.box_xyxy for box in others], evidence)
    share = max(_share(own, evidence.cells(strip)) for strip in _strips(one.box_xyxy, evidence.size_hw))
    if share < _BEYOND_SHARE:
        return
    box = _reached(own, one.box_xyxy, evidence)
    if _growth(one.box_xyxy, box) >= _GROWN:
        yield Issue("tight", _WEAK * weight * share, _box_text("widen to", box), one.annotation_id, box_xyxy=box)


def too_loose(one: GivenObject, evidence: Evidence) -> Iterator[Issue]:
    """A box of which the segmenter sees the object's class in a part alone, away from at least three of its sides.

    One or two free sides are what a leg or a tail leaves, or a neighbour in front. Fused masks are no evidence here:
    they are made to fill their boxes.
    """
    index, cells = evidence.index_of.get(one.category_id), evidence.cells(one.box_xyxy)
    own, weight = evidence.label_map[cells] == (index or -1), _size_weight(one.box_xyxy, evidence.size_hw)
    if not weight or not own.any() or own.mean() < _LEAST_FILL:
        return
    rows, columns = np.flatnonzero(own.any(axis=1)), np.flatnonzero(own.any(axis=0))
    height, width = own.shape
    gaps = sorted(
        (columns[0] / width, rows[0] / height, (width - 1 - columns[-1]) / width, (height - 1 - rows[-1]) / height)
    )
    if gaps[1] >= _GAP:
        top, left = cells[0].start, cells[1].start
        reach = (slice(top + rows[0], top + rows[-1] + 1), slice(left + columns[0], left + columns[-1] + 1))
        box = evidence.pixels(reach)
        yield Issue(
            "loose", weight * min(1.0, 2 * gaps[1]), _box_text("draw in to", box), one.annotation_id, box_xyxy=box
        )


def of_other_class(one: GivenObject, others: Sequence[GivenObject], evidence: Evidence) -> Iterator[Issue]:
    """A box in whose middle the segmenter is sure of another class, and sees nothing of its own, if it knows that."""
    core = evidence.cells(_scaled(one.box_xyxy, _CORE))
    labels, sure = evidence.label_map[core], evidence.confidence[core] >= _SURE
    uncovered = ~_covered([box.box_xyxy for box in others], evidence)
    free = uncovered[core]
    if not labels.size or free.mean() < _LEAST_LEFT:
        return
    counts = np.bincount(labels[free & sure], minlength=len(evidence.names)) / free.sum()
    own = evidence.index_of.get(one.category_id)
    best = int(np.argmax(counts[1:])) + 1
    if own is None:
        weight = _WEAK if counts[best] >= _UNKNOWN_SHARE else 0.0
    else:
        weight = float(best != own and counts[best] >= _OTHER_SHARE and counts[own] <= _OWN_SHARE)
    weight *= _size_weight(one.box_xyxy, evidence.size_hw)
    if weight and _within(one.box_xyxy, uncovered, best, evidence) >= _LEAST_WITHIN:
        text = f"the segmenter sees {evidence.names[best]}"
        yield Issue("wrong_class", weight * float(counts[best]), text, one.annotation_id)


def missing(objects: Sequence[GivenObject], evidence: Evidence) -> Iterator[Issue]:
    """Regions of the segmenter's classes that are large enough for an object and lie in no box."""
    covered = _covered([_scaled(one.box_xyxy, 1.1) for one in objects], evidence)
    known = sorted(set(evidence.index_of.values()) - {0})
    for index in known:
        numbered, _ = ndimage.label(evidence.sure(index))
        for number, cells in enumerate(ndimage.find_objects(numbered), 1):
            region = numbered[cells] == number
            free = float((region & ~covered[cells]).sum()) / region.sum()
            large = region.sum() >= _MISSING_SHARE * numbered.size
            if large and free >= _MISSING_FREE:
                sure = float(evidence.confidence[cells][region].mean()) / 255
                box = evidence.pixels((cells[0], cells[1]))
                yield Issue("missing", sure * free, _box_text(f"{evidence.names[index]} at", box), box_xyxy=box)


def _within(box: Box, uncovered: Bool[np.ndarray, "h w"], index: int, evidence: Evidence) -> float:
    """How much of the class's regions that lie in a box lies in or near it: a table that a cup stands on goes on."""
    numbered, _ = ndimage.label(evidence.sure(index) & (uncovered | _covered([box], evidence)))
    inside = np.unique(numbered[evidence.cells(_scaled(box, _CORE))])
    region = np.isin(numbered, inside[inside > 0])
    return _share_of(region, evidence.cells(_scaled(box, _NEAR)))


def _share_of(region: Bool[np.ndarray, "h w"], cells: tuple[slice, slice]) -> float:
    return float(region[cells].sum() / max(region.sum(), 1))


def _size_weight(box: Box, size_hw: tuple[int, int]) -> float:
    """How much a label map's word on a box counts: 1 for a large one, 0 for one that is too small to be seen."""
    side = float(np.sqrt((box[2] - box[0]) * (box[3] - box[1])) / max(size_hw))
    return min(1.0, side / _LARGE) if side >= _SMALL else 0.0


def _covered(boxes: Sequence[Sequence[float]], evidence: Evidence) -> Bool[np.ndarray, "h w"]:
    """The cells that lie in any of the boxes."""
    out: Bool[np.ndarray, "h w"] = np.zeros(evidence.label_map.shape, dtype=np.bool_)
    for box in boxes:
        out[evidence.cells(box)] = True
    return out


def _share(where: Bool[np.ndarray, "h w"], cells: tuple[slice, slice]) -> float:
    cut = where[cells]
    return float(cut.mean()) if cut.size else 0.0


def _strips(box: Box, size_hw: tuple[int, int]) -> list[Box]:
    """The middle of what lies beside each side of a box; empty where the image ends."""
    left, top, right, bottom = box
    deep_x, deep_y = _BEYOND_DEPTH * (right - left), _BEYOND_DEPTH * (bottom - top)
    in_x, in_y = 0.1 * (right - left), 0.1 * (bottom - top)
    return [
        (max(left - deep_x, 0), top + in_y, left, bottom - in_y),
        (left + in_x, max(top - deep_y, 0), right - in_x, top),
        (right, top + in_y, min(right + deep_x, size_hw[1]), bottom - in_y),
        (left + in_x, bottom, right - in_x, min(bottom + deep_y, size_hw[0])),
    ]  # fmt: skip


def _reached(own: Bool[np.ndarray, "h w"], box: Box, evidence: Evidence) -> Box:
    """The box widened to the parts of its class that lie in it and go on outside."""
    numbered, _ = ndimage.label(own)
    inside = np.unique(numbered[evidence.cells(box)])
    rows, columns = np.nonzero(np.isin(numbered, inside[inside > 0]))
    if not rows.size:
        return box
    reach = evidence.pixels((slice(rows.min(), rows.max() + 1), slice(columns.min(), columns.max() + 1)))
    return (min(box[0], reach[0]), min(box[1], reach[1]), max(box[2], reach[2]), max(box[3], reach[3]))


def _growth(box: Box, wider: Box) -> float:
    """How far the second box reaches beyond the first one, in lengths of the first one's side; the largest of four."""
    across, down = box[2] - box[0], box[3] - box[1]
    return max(
        (box[0] - wider[0]) / across,
        (box[1] - wider[1]) / down,
        (wider[2] - box[2]) / across,
        (wider[3] - box[3]) / down,
    )


def _scaled(box: Box, share: float) -> Box:
    """The box around the same centre with sides times `share`."""
    half_x, half_y = (box[2] - box[0]) * (1 - share) / 2, (box[3] - box[1]) * (1 - share) / 2
    return (box[0] + half_x, box[1] + half_y, box[2] - half_x, box[3] - half_y)


def _span(start: float, end: float, limit: int) -> slice:
    """Whole cells from the first to the last that is touched by more than half."""
    first, last = round(max(start, 0.0)), round(min(end, float(limit)))
    return slice(min(first, limit), max(last, min(first, limit)))


def _box_text(what: str, box: Box) -> str:
    x, y, width, height = box[0], box[1], box[2] - box[0], box[3] - box[1]
    return f"{what} x {x:.0f}, y {y:.0f}, {width:.0f} x {height:.0f}"
