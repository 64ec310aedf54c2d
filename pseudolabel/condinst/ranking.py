"""Which candidates speak for an object: Box-Quality Ranking, and BoxTeacher's assignment as the baseline."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torchvision.ops import batched_nms


@dataclass(frozen=True, slots=True)
class Ranking:
    """The chosen candidates of every object, best first, padded to the same number."""

    index: Int64[Tensor, "n k"]  # into the candidates; 0 where not valid
    valid: Bool[Tensor, "n k"]


def box_quality_ranking(
    box_iou: Float[Tensor, "n c"],
    k: int | Int64[Tensor, "n"],
    *,
    min_iou: float = 0.5,
) -> Ranking:
    """The `k` candidates whose boxes fit each object's box best, without NMS and before any look at scores.

    Args:
        box_iou: IoU of every object's box with every candidate's.
        k: how many, for all or per object.
        min_iou: candidates below are not chosen however few there are; 0 is the paper's own rule.

    Equal IoUs keep the candidates' order, so that the choice is the same on every machine.

    Source: BoxSeg, section 3.3; the floor is the released code's.
    """
    wanted = torch.as_tensor(k, dtype=torch.int64, device=box_iou.device).expand(box_iou.shape[0])
    width = min(box_iou.shape[1], int(wanted.max())) if wanted.numel() else 0
    usable = box_iou >= min_iou
    order = torch.where(usable, box_iou, -1.0).argsort(dim=1, descending=True, stable=True)[:, :width]
    place = torch.arange(width, device=box_iou.device)
    valid = usable.gather(1, order) & (place < wanted[:, None])
    return Ranking(order * valid, valid)


def keep_after_nms(
    boxes_xyxy: Float[Tensor, "c 4"],
    scores: Float[Tensor, "c"],
    classes: Int64[Tensor, "c"],
    *,
    max_iou: float = 0.6,
    top: int = 100,
) -> Int64[Tensor, "kept"]:
    """Indices of the detections that non-maximum suppression within classes leaves, best score first.

    Source: FCOS' own inference, as BoxTeacher uses it.
    """
    kept: Tensor = batched_nms(boxes_xyxy, scores, classes, max_iou)
    return kept[:top]


def bpma(box_iou: Float[Tensor, "n c"], rank_score: Float[Tensor, "c"], *, min_iou: float = 0.5) -> Int64[Tensor, "n"]:
    """The one detection of each object, -1 for none: box-based pseudo mask assignment.

    Detections choose in the order of `rank_score`; each takes the object with the largest IoU among those that are
    still free and overlap by `min_iou`. Classes are not looked at.

    Source: BoxTeacher (arXiv 2210.05174). The reference lets object number 0's detection be taken twice; here "free"
    is a marker of its own.
    """
    overlaps = box_iou.detach().cpu()
    chosen = torch.full((overlaps.shape[0],), -1, dtype=torch.int64)
    for detection in rank_score.detach().cpu().argsort(descending=True, stable=True).tolist():
        free = torch.where((chosen < 0) & (overlaps[:, detection] >= min_iou), overlaps[:, detection], -1.0)
        if free.numel() and float(free.max()) >= 0:
            chosen[int(free.argmax())] = detection
    return chosen.to(box_iou.device)
