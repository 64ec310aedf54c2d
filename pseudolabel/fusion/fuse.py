"""One mask from several: quality-aware fusion, the released code's vote, and the best single candidate.

All functions take a padded batch of n objects with k candidates each on one grid, on any device; the stage `fuse`
calls them with n = 1, training with all objects of a step.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

TAU_BOX = 0.1  # candidates need a larger box score; the released code's value, the paper's is not known
TAU_PIXEL = 0.5  # pixels need a larger probability; the released code's and BoxTeacher's value


def box_quality(box_score: Float[Tensor, "n k"], box_iou: Float[Tensor, "n k"]) -> Float[Tensor, "n k"]:
    """Geometric mean of a candidate's box score and its box's IoU with the object's. Source: BoxSeg, section 3.3."""
    return (box_score * box_iou).sqrt()


def passing(
    box_score: Float[Tensor, "n k"], valid: Bool[Tensor, "n k"], *, tau_box: float = TAU_BOX
) -> Bool[Tensor, "n k"]:
    """Which candidates take part: real ones whose box score is above the threshold."""
    return valid & (box_score > tau_box)


def qmf_weights(quality: Float[Tensor, "n k"], kept: Bool[Tensor, "n k"]) -> Float[Tensor, "n k"]:
    """Share of every candidate in the fused mask; each row sums to 1, or is 0 where no candidate has any quality.

    Source: BoxSeg, eq. 2.
    """
    raw = torch.where(kept, quality, 0.0)
    total = raw.sum(dim=1, keepdim=True)
    return raw / torch.where(total > 0, total, 1.0)


def weighted_mean(probability: Float[Tensor, "n k h w"], weights: Float[Tensor, "n k"]) -> Float[Tensor, "n h w"]:
    """Soft fused masks: the weighted sum over candidates. Source: BoxSeg, eq. 2."""
    n, k, h, w = probability.shape
    return torch.bmm(weights[:, None, :], probability.reshape(n, k, h * w)).reshape(n, h, w)


def vote_share(
    probability: Float[Tensor, "n k h w"], kept: Bool[Tensor, "n k"], *, tau_pixel: float = TAU_PIXEL
) -> Float[Tensor, "n h w"]:
    """Which part of the kept candidates calls a cell foreground; more than half is the released code's mask.

    Every candidate's voice counts the same. Source: BoxSeg's released code.
    """
    equal = qmf_weights(kept.to(probability.dtype), kept)
    return weighted_mean((probability > tau_pixel).to(probability.dtype), equal)


def best_single(quality: Float[Tensor, "n k"], kept: Bool[Tensor, "n k"]) -> Float[Tensor, "n k"]:
    """Weights that give everything to the kept candidate of the highest quality (the first of equal ones)."""
    raw = torch.where(kept, quality, -1.0)
    weights = torch.zeros_like(quality)
    if quality.shape[1]:
        weights.scatter_(1, raw.argmax(dim=1, keepdim=True), 1.0)
    return weights * kept
