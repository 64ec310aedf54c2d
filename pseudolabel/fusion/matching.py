"""Which candidates may speak for which object of an image, and how well their boxes meet the object's."""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float64

from pseudolabel.boxes import iou_matrix
from pseudolabel.candidates import Candidate, GivenBox, boxes_array


def box_ious(targets: Sequence[GivenBox], candidates: Sequence[Candidate]) -> Float64[np.ndarray, "n c"]:
    """IoU of every object's box with every candidate's; what a candidate's own row says about its object goes first."""
    if not targets or not candidates:
        return np.zeros((len(targets), len(candidates)))
    ious = iou_matrix(boxes_array(targets), boxes_array(candidates))
    place = {target.annotation_id: i for i, target in enumerate(targets) if target.annotation_id is not None}
    for column, candidate in enumerate(candidates):
        if candidate.annotation_id in place and candidate.box_iou is not None:
            ious[place[candidate.annotation_id], column] = candidate.box_iou
    return ious


def may_serve(targets: Sequence[GivenBox], candidates: Sequence[Candidate]) -> Bool[np.ndarray, "n c"]:
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
