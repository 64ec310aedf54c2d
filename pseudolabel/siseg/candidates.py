"""Instances as candidates: matched to given boxes and cut to them, or standing for themselves."""

from collections.abc import Mapping, Sequence
from math import ceil

import numpy as np
from jaxtyping import Float32

from pseudolabel.boxes import iou_matrix
from pseudolabel.candidates import Box, Candidate, GivenBox
from pseudolabel.masks import Grid, SoftMask, pixel_window, resample
from pseudolabel.siseg.pieces import Instance

SMALLEST_IOU = 0.3
MOST_PER_BOX = 3
INSIDE_SHARE = 0.5
SOURCE = "siseg"


def standing_candidates(
    instances: Sequence[Instance], category_of: Mapping[int, int], size_hw: tuple[int, int]
) -> list[Candidate]:
    """A candidate per instance whose class has a category, its box being the mask's own extent."""
    result = []
    for one in instances:
        box = mask_box(one.mask, size_hw)
        if box is not None and one.class_index in category_of:
            category = category_of[one.class_index]
            result.append(Candidate(SOURCE, None, category, box, one.score, None, one.mask, knows_class=True))
    return result


def boxed_candidates(
    instances: Sequence[Instance], boxes: Sequence[GivenBox], size_hw: tuple[int, int]
) -> list[Candidate]:
    """For every box up to three instances of its class cut to it, and the union of those that lie in it mostly.

    An instance counts where its extent inside the box has an IoU of at least 0.3 with the box. The union mends objects
    that the field or the segmenter split, the cut those that it merged.
    """
    return [one for box in boxes for one in _for_box(instances, box, size_hw)]


def mask_box(mask: SoftMask, size_hw: tuple[int, int]) -> Box | None:
    """Extent of the pixels of probability one half or more, ends exclusive; None where there are none."""
    window = pixel_window(mask.grid.extent_xyxy, size_hw)
    pixels = resample(mask.probability.astype(np.float32) / 255, mask.grid, window) >= 0.5
    rows, columns = np.flatnonzero(pixels.any(axis=1)), np.flatnonzero(pixels.any(axis=0))
    if not len(rows):
        return None
    return (
        window.x0 + float(columns[0]),
        window.y0 + float(rows[0]),
        window.x0 + float(columns[-1] + 1),
        window.y0 + float(rows[-1] + 1),
    )


def _for_box(instances: Sequence[Instance], box: GivenBox, size_hw: tuple[int, int]) -> list[Candidate]:
    near = [one for one in instances if one.class_index == box.class_index and _overlap(one.mask, box.box_xyxy)]
    if not near:
        return []
    grid = _box_grid(box.box_xyxy, near[0].mask.grid)
    planes = [_read(one.mask, grid) for one in near]
    found = [_candidate(box, grid, plane, one.score, size_hw) for one, plane in zip(near, planes, strict=True)]
    kept = sorted((one for one in found if one is not None), key=lambda one: -(one.box_iou or 0))[:MOST_PER_BOX]
    inside = [i for i, one in enumerate(near) if planes[i].sum() * _cell_area(grid) > INSIDE_SHARE * _area(one.mask)]
    if len(inside) > 1:
        union = np.minimum(np.sum([planes[i] for i in inside], axis=0, dtype=np.float32), 1)
        score = float(np.average([near[i].score for i in inside], weights=[planes[i].sum() for i in inside]))
        whole = _candidate(box, grid, union, score, size_hw)
        kept += [whole] if whole is not None else []
    return kept


def _candidate(
    box: GivenBox, grid: Grid, plane: Float32[np.ndarray, "h w"], score: float, size_hw: tuple[int, int]
) -> Candidate | None:
    mask = SoftMask(grid, np.rint(plane * 255).astype(np.uint8))
    extent = mask_box(mask, size_hw)
    if extent is None:
        return None
    iou = float(iou_matrix(np.array([extent]), np.array([box.box_xyxy], dtype=np.float64))[0, 0])
    if iou < SMALLEST_IOU:
        return None
    return Candidate(SOURCE, box.annotation_id, box.category_id, extent, score, iou, mask, knows_class=True)


def _box_grid(box_xyxy: Box, like: Grid) -> Grid:
    """Cells no larger than those of `like` that fill a box exactly."""
    width, height = box_xyxy[2] - box_xyxy[0], box_xyxy[3] - box_xyxy[1]
    columns, rows = max(ceil(width / like.stride_x), 1), max(ceil(height / like.stride_y), 1)
    return Grid(box_xyxy[0], box_xyxy[1], width / columns, height / rows, rows, columns)


def _read(mask: SoftMask, grid: Grid) -> Float32[np.ndarray, "h w"]:
    return resample(mask.probability.astype(np.float32) / 255, mask.grid, grid)


def _overlap(mask: SoftMask, box_xyxy: Box) -> bool:
    left, top, right, bottom = mask.grid.extent_xyxy
    return left < box_xyxy[2] and right > box_xyxy[0] and top < box_xyxy[3] and bottom > box_xyxy[1]


def _area(mask: SoftMask) -> float:
    return float(mask.probability.sum(dtype=np.float64)) / 255 * _cell_area(mask.grid)


def _cell_area(grid: Grid) -> float:
    return grid.stride_x * grid.stride_y
