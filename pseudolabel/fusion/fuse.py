"""One mask from several: quality-aware fusion, the released code's vote, and the best single candidate.

All functions take a padded batch of n objects with k candidates each on one grid; the stage `fuse` calls them with
n = 1 and arrays of numpy, training with all objects of a step and tensors of torch.
"""

from jaxtyping import Bool, Float

from pseudolabel.fusion.arrays import Array, namespace

TAU_BOX = 0.1  # candidates need a larger box score; the released code's value, the paper's is not known
TAU_PIXEL = 0.5  # pixels need a larger probability; the released code's and BoxTeacher's value


def box_quality(box_score: Float[Array, "n k"], box_iou: Float[Array, "n k"]) -> Float[Array, "n k"]:
    """Geometric mean of a candidate's box score and its box's IoU with the object's. Source: BoxSeg, section 3.3."""
    return (box_score * box_iou) ** 0.5


def passing(
    box_score: Float[Array, "n k"], valid: Bool[Array, "n k"], *, tau_box: float = TAU_BOX
) -> Bool[Array, "n k"]:
    """Which candidates take part: real ones whose box score is above the threshold."""
    return valid & (box_score > tau_box)


def qmf_weights(quality: Float[Array, "n k"], kept: Bool[Array, "n k"]) -> Float[Array, "n k"]:
    """Share of every candidate in the fused mask; each row sums to 1, or is 0 where no candidate has any quality.

    Source: BoxSeg, eq. 2.
    """
    where = namespace(quality).where
    raw = where(kept, quality, 0.0)
    total = raw.sum(axis=1, keepdims=True)
    return raw / where(total > 0, total, 1.0)


def weighted_mean(probability: Float[Array, "n k h w"], weights: Float[Array, "n k"]) -> Float[Array, "n h w"]:
    """Soft fused masks: the weighted sum over candidates. Source: BoxSeg, eq. 2."""
    n, k, h, w = probability.shape
    return (weights[:, None, :] @ probability.reshape(n, k, h * w)).reshape(n, h, w)


def vote_share(
    probability: Float[Array, "n k h w"], kept: Bool[Array, "n k"], *, tau_pixel: float = TAU_PIXEL
) -> Float[Array, "n h w"]:
    """Which part of the kept candidates calls a cell foreground; more than half is the released code's mask.

    Every candidate's voice counts the same. Source: BoxSeg's released code.
    """
    votes = (probability > tau_pixel) & kept[:, :, None, None]
    voters = kept.sum(axis=1, dtype=probability.dtype).clip(min=1)
    return votes.sum(axis=1, dtype=probability.dtype) / voters[:, None, None]


def best_single(quality: Float[Array, "n k"], kept: Bool[Array, "n k"]) -> Float[Array, "n k"]:
    """Weights that give everything to the kept candidate of the highest quality (the first of equal ones)."""
    xp = namespace(quality)
    weights = xp.zeros_like(quality)
    if quality.shape[1]:
        weights[xp.arange(len(quality)), xp.where(kept, quality, -1.0).argmax(axis=1)] = 1.0
    return weights * kept
