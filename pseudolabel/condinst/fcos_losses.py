"""The detector's losses: focal or varifocal classification, centerness, and smoothed GIoU.

Source: FCOS (arXiv 1904.01355), VarifocalNet (arXiv 2008.13367); the smoothing of the IoU is the released code's.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import sigmoid_focal_loss

from pseudolabel.condinst.assignment import FINEST_PX, assign, distances
from pseudolabel.condinst.batch import Targets
from pseudolabel.condinst.fcos import Dense
from pseudolabel.training.processes import normaliser


@dataclass(frozen=True, slots=True)
class Assigned:
    """The positive locations of a batch, image by image."""

    image: Int[Tensor, "p"]
    location: Int[Tensor, "p"]
    owner: Int[Tensor, "p"]  # the object, numbered over the whole batch
    label: Int[Tensor, "p"]
    ltrb: Float[Tensor, "p 4"]  # true distances in strides


def assign_batch(
    dense: Dense,
    targets: tuple[Targets, ...],
    centres: list[Tensor] | None = None,
    *,
    finest_px: float = FINEST_PX,
) -> Assigned:
    """Positives of all images; objects are numbered through in the order of the targets."""
    parts, before = [], 0
    for index, one in enumerate(targets):
        chosen = assign(dense.locations, one.boxes, None if centres is None else centres[index], finest_px=finest_px)
        location = (chosen >= 0).nonzero()[:, 0]
        mine = chosen[location]
        ltrb = distances(dense.locations.xy[location], one.boxes)[torch.arange(len(mine), device=mine.device), mine]
        ltrb = ltrb / dense.locations.stride[location, None]
        parts.append((torch.full_like(mine, index), location, mine + before, one.labels[mine], ltrb))
        before += len(one.boxes)
    return Assigned(*(torch.cat(columns) for columns in zip(*parts, strict=True)))


def smoothed_iou(
    predicted: Float[Tensor, "p 4"], true: Float[Tensor, "p 4"]
) -> tuple[Float[Tensor, "p"], Float[Tensor, "p"]]:
    """(I + 1) / (U + 1), and the same less the empty share of the hull (GIoU), of boxes that share a location.

    Args:
        predicted: distances to left, top, right, bottom, in strides.
    """
    inner, outer = torch.minimum(predicted, true), torch.maximum(predicted, true)
    intersection, hull = _area(inner), _area(outer)
    union = _area(predicted) + _area(true) - intersection
    iou = (intersection + 1) / (union + 1)
    return iou, iou - (hull - union) / hull


def _area(ltrb: Float[Tensor, "p 4"]) -> Float[Tensor, "p"]:
    return (ltrb[:, 0] + ltrb[:, 2]) * (ltrb[:, 1] + ltrb[:, 3])


def centerness_target(ltrb: Float[Tensor, "p 4"]) -> Float[Tensor, "p"]:
    """1 in the middle of the box, 0 on its border."""
    across, along = ltrb[:, [0, 2]], ltrb[:, [1, 3]]
    ratio = (across.amin(1) / across.amax(1)) * (along.amin(1) / along.amax(1))
    return ratio.sqrt()


def varifocal_loss(
    logits: Float[Tensor, "*n c"], target: Float[Tensor, "*n c"], *, alpha: float = 0.75, gamma: float = 2.0
) -> Float[Tensor, ""]:
    """Sum of cross-entropies with an IoU as target, weighted by it; elsewhere alpha p^gamma.

    Source: VarifocalNet (arXiv 2008.13367), eq. 2.
    """
    weight = torch.where(target > 0, target, alpha * logits.sigmoid() ** gamma)
    entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    return (weight * entropy).sum()


def detection_losses(
    dense: Dense, assigned: Assigned, *, varifocal: bool = False, varifocal_alpha: float = 0.75
) -> dict[str, Float[Tensor, ""]]:
    """`class`, `box` and `centerness`, each over the whole batch of all processes."""
    ltrb = dense.ltrb[assigned.image, assigned.location]
    iou, giou = smoothed_iou(ltrb, assigned.ltrb)
    true_centerness = centerness_target(assigned.ltrb)
    positives = normaliser(torch.tensor(len(ltrb), device=ltrb.device))
    weight = normaliser(true_centerness.sum(), least=1e-6)
    target = torch.zeros_like(dense.logits)
    target[assigned.image, assigned.location, assigned.label] = iou.detach() if varifocal else 1.0
    if varifocal:
        classification = varifocal_loss(dense.logits, target, alpha=varifocal_alpha)
    else:
        classification = sigmoid_focal_loss(dense.logits, target, alpha=0.25, gamma=2, reduction="sum")
    centerness = dense.centerness[assigned.image, assigned.location]
    return {
        "class": classification / positives,
        "box": (true_centerness * (1 - giou)).sum() / weight,
        "centerness": F.binary_cross_entropy_with_logits(centerness, true_centerness, reduction="sum") / positives,
    }
