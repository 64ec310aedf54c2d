"""BoxTeacher's assignment, the baseline beside Box-Quality Ranking."""

from collections.abc import Sequence

import numpy as np
import torch

from pseudolabel.candidates import Candidate, GivenBox, boxes_array
from pseudolabel.condinst.ranking import bpma, keep_after_nms
from pseudolabel.fusion.matching import Served, pairs
from pseudolabel.fusion.scoring import detection_rank


def assigned(targets: Sequence[GivenBox], candidates: Sequence[Candidate], *, min_iou: float) -> list[Served]:
    """Suppression among the free candidates of a class, then one candidate per object at most."""
    if not candidates:
        return [Served([], np.zeros(0, dtype=np.float32))] * len(targets)
    row, column, iou = pairs(targets, candidates, min_iou=min_iou)
    ious = np.full((len(targets), len(candidates)), -1, dtype=np.float32)
    ious[row, column] = iou
    left = np.full_like(ious, -1)
    survivors = _survivors(candidates)
    left[:, survivors] = ious[:, survivors]
    order = torch.tensor([_rank(candidate) for candidate in candidates])
    chosen = bpma(torch.from_numpy(left), order, min_iou=min_iou).tolist()
    taken = [[place] if place >= 0 else [] for place in chosen]
    return [Served(columns, ious[row, columns]) for row, columns in enumerate(taken)]


def _survivors(candidates: Sequence[Candidate]) -> list[int]:
    owner = [(c.annotation_id, c.category_id) for c in candidates]
    groups = {key: i for i, key in enumerate(dict.fromkeys(owner))}
    boxes = torch.from_numpy(boxes_array(candidates)).float()
    scores = torch.tensor([c.box_score for c in candidates])
    classes = torch.tensor([groups[key] for key in owner])
    kept: list[int] = keep_after_nms(boxes, scores, classes, top=len(candidates)).tolist()
    return kept


def _rank(candidate: Candidate) -> float:
    """The order in which candidates choose objects."""
    mask = candidate.mask.probability.astype(np.float32)[None] / 255
    return float(detection_rank(np.array([candidate.box_score], dtype=np.float32), mask)[0])
