"""From dense predictions to detections, or to the predictions whose boxes fit given boxes best."""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torchvision.ops import batched_nms, box_iou, clip_boxes_to_image

from pseudolabel.condinst.fcos import Dense
from pseudolabel.condinst.ranking import Ranking, box_quality_ranking

MOST_DETECTIONS = 100  # of an image
ScoreKind = Literal["class", "sqrt_class_centerness"]


@dataclass(frozen=True, slots=True)
class Detections:
    """What the detector finds on one image, best first."""

    boxes: Float[Tensor, "d 4"]
    scores: Float[Tensor, "d"]
    labels: Int[Tensor, "d"]
    location: Int[Tensor, "d"]


@dataclass(frozen=True, slots=True)
class Candidates:
    """For every given box of one image the predictions that fit it best, padded to the same number."""

    location: Int[Tensor, "n k"]
    boxes: Float[Tensor, "n k 4"]
    scores: Float[Tensor, "n k"]
    box_iou: Float[Tensor, "n k"]
    ranking: Ranking


def class_scores(dense: Dense, image: int, kind: ScoreKind) -> Float[Tensor, "l c"]:
    """Scores of one image's locations: the class probability alone, or its geometric mean with centerness."""
    probability = dense.logits[image].sigmoid()
    if kind == "class":
        return probability
    return (probability * dense.centerness[image].sigmoid()[:, None]).sqrt()


def detect(
    dense: Dense,
    image: int,
    size_hw: tuple[int, int],
    *,
    threshold: float = 0.05,
    per_level: int = 1000,
    nms_iou: float = 0.6,
    most: int = MOST_DETECTIONS,
) -> Detections:
    """Detections of one image after non-maximum suppression within classes.

    Class times centerness must exceed `threshold`; its square root is the score. Source: FCOS (arXiv 1904.01355).
    """
    score = class_scores(dense, image, "sqrt_class_centerness").square()
    chosen = [
        _top(torch.where(dense.locations.level[:, None] == level, score, 0.0), threshold, per_level)
        for level in range(len(dense.locations.sizes_hw))
    ]
    flat = torch.cat(chosen)
    location, labels = torch.div(flat, score.shape[1], rounding_mode="floor"), flat % score.shape[1]
    boxes = clip_boxes_to_image(dense.boxes_xyxy()[image, location], size_hw)
    scores = score.flatten()[flat].sqrt()
    kept = batched_nms(boxes, scores, labels, nms_iou)[:most]
    return Detections(boxes[kept], scores[kept], labels[kept], location[kept])


def _top(score: Float[Tensor, "l c"], threshold: float, most: int) -> Int[Tensor, "t"]:
    """Indices into the flattened scores of the largest ones above the threshold."""
    flat = score.flatten()
    above = (flat > threshold).nonzero()[:, 0]
    return above[flat[above].argsort(descending=True, stable=True)[:most]]


def candidates_for_boxes(
    dense: Dense,
    image: int,
    boxes: Float[Tensor, "n 4"],
    size_hw: tuple[int, int],
    *,
    k: int | Int[Tensor, "n"],
    labels: Int[Tensor, "n"] | None = None,
    kind: ScoreKind = "class",
    min_iou: float = 0.5,
) -> Candidates:
    """Box-Quality Ranking over all locations of one image, without NMS.

    Args:
        labels: class of each box, whose score counts; the best class where not given or -1.

    Source: BoxSeg (arXiv 2504.05137), section 3.3.
    """
    predicted = clip_boxes_to_image(dense.boxes_xyxy()[image], size_hw)
    overlap = box_iou(boxes, predicted)
    ranking = box_quality_ranking(overlap, k, min_iou=min_iou)
    scores = class_scores(dense, image, kind)
    own = scores.amax(dim=1).expand(len(boxes), -1)
    if labels is not None:
        own = torch.where(labels[:, None] < 0, own, scores.T[labels.clamp(min=0)])
    index = ranking.index
    return Candidates(index, predicted[index], own.gather(1, index), overlap.gather(1, index), ranking)
