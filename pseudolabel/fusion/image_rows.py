"""All pseudo labels of one image: given boxes, or objects that the candidates agree on."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import UInt8

from pseudolabel.candidates import Candidate, GivenBox
from pseudolabel.fusion.groups import label_groups
from pseudolabel.fusion.labels import LabelSettings, crowd_row, label_objects
from pseudolabel.fusion.score_model import ScoreModel
from pseudolabel.rle import Rle, from_segmentation

Row = dict[str, Any]


def image_rows(
    boxes: Sequence[GivenBox] | None,
    candidates: Sequence[Candidate],
    size_hw: tuple[int, int],
    settings: LabelSettings,
    *,
    calibration: ScoreModel | None = None,
    rgb: UInt8[np.ndarray, "H W 3"] | None = None,
) -> list[Row]:
    """Rows of `records.PSEUDO` without image key and status: one per given box, by annotation id.

    Args:
        boxes: crowds among them pass through; None where no boxes were given and the objects have to be found.
        rgb: the photograph, where the refinement looks at colours.
    """
    if boxes is None:
        return label_groups(candidates, size_hw, settings, calibration, rgb)
    objects = [box for box in boxes if not box.is_crowd]
    rows = label_objects(objects, candidates, size_hw, settings, calibration, rgb)
    rows += [crowd_row(box, _crowd_mask(box, size_hw), size_hw) for box in boxes if box.is_crowd]
    return sorted(rows, key=lambda row: int(row["annotation_id"]))


def _crowd_mask(crowd: GivenBox, size_hw: tuple[int, int]) -> Rle | None:
    """A crowd's region as the user drew it, None where only its box is there; never asked for an ordinary object."""
    return from_segmentation(json.loads(crowd.segmentation), size_hw) if crowd.segmentation else None
