"""The Quality-Aware Module as one call: which candidates, one mask from them, and its score.

Training and the stage `fuse` share this file; what differs is only how the candidates got onto one grid.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from jaxtyping import Bool, Float

from pseudolabel.fusion.arrays import Array, namespace
from pseudolabel.fusion.fuse import (
    TAU_BOX,
    TAU_PIXEL,
    best_single,
    box_quality,
    passing,
    qmf_weights,
    vote_share,
    weighted_mean,
)
from pseudolabel.fusion.scoring import (
    Quality,
    mask_confidence_code,
    mask_quality_score,
    vote_score,
)

Fusion = Literal["qmf", "vote", "best"]
Score = Literal["mqs", "mcs", "mcs-paper", "code"]


@dataclass(frozen=True, slots=True)
class FusionRule:
    """Which fusion, which score and which thresholds; the defaults follow the papers' equations."""

    fusion: Fusion = "qmf"
    score: Score = "mqs"
    tau_box: float = TAU_BOX
    tau_pixel: float = TAU_PIXEL


@dataclass(frozen=True, slots=True)
class Fused:
    """Soft masks of n objects with their scores; an object without a kept candidate has weight, mask and score 0."""

    mask: Float[Array, "n h w"]
    weights: Float[Array, "n k"]
    kept: Bool[Array, "n k"]
    quality: Quality


def threshold_of(weights: Sequence[float]) -> float:
    """The pixel threshold for sources of these weights: 0.5 + 0.1 min(o, 1), where o is what the others weigh together
    beside the heaviest one.

    A source alone is read at one half. Of two that weigh the same, one that is certain does not suffice: the other has
    to see at least a hint, 0.2, of the object, too.

    Args:
        weights: one per source, positive; at least one.
    """
    return 0.5 + 0.1 * min(sum(weights) / max(weights) - 1, 1.0)


def candidate_weights(
    box_score: Float[Array, "n k"], box_iou: Float[Array, "n k"], kept: Bool[Array, "n k"], rule: FusionRule
) -> Float[Array, "n k"]:
    """Share of every candidate under the rule."""
    quality = box_quality(box_score, box_iou)
    if rule.fusion == "qmf":
        return qmf_weights(quality, kept)
    if rule.fusion == "best":
        return best_single(quality, kept)
    return qmf_weights(namespace(quality).ones_like(quality), kept)


def fuse_masks(
    probability: Float[Array, "n k h w"], weights: Float[Array, "n k"], kept: Bool[Array, "n k"], rule: FusionRule
) -> Float[Array, "n h w"]:
    """Soft masks, of which `> rule.tau_pixel` (for the vote: more than half) is the object."""
    if rule.fusion == "vote":
        return vote_share(probability, kept, tau_pixel=rule.tau_pixel)
    return weighted_mean(probability, weights)


def quality_of(
    fused: Float[Array, "n h w"],
    probability: Float[Array, "n k h w"],
    box_score: Float[Array, "n k"],
    kept: Bool[Array, "n k"],
    box_mask: Bool[Array, "n h w"],
    rule: FusionRule,
) -> Quality:
    """The score that the rule names, always with MQS' two averages beside it.

    BoxTeacher's confidences are defined for one detection; of several, the mean box score stands in.
    """
    parts = mask_quality_score(box_score, kept, fused, box_mask, tau_pixel=rule.tau_pixel)
    if rule.score == "code":
        score = vote_score(box_score, kept, probability, fused > 0.5, tau_pixel=rule.tau_pixel)
        return Quality(score, parts.box, parts.pixel)
    if rule.score == "mcs":
        return Quality(mask_confidence_code(parts.box, fused, tau_pixel=rule.tau_pixel), parts.box, parts.pixel)
    return quality_of_means(parts.box, parts.pixel, rule)


def quality_of_means(box: Float[Array, "n"], pixel: Float[Array, "n"], rule: FusionRule) -> Quality:
    """The score from the mean box score and the mean probability inside the box alone.

    MQS and the paper's form of BoxTeacher's confidence are the same function of the two.
    """
    base = box**0.5 if rule.score == "mcs" else box
    return Quality((base * pixel) ** 0.5, box, pixel)


def quality_aware_fusion(
    probability: Float[Array, "n k h w"],
    box_score: Float[Array, "n k"],
    box_iou: Float[Array, "n k"],
    valid: Bool[Array, "n k"],
    box_mask: Bool[Array, "n h w"],
    rule: FusionRule,
) -> Fused:
    """Fused masks and scores of n objects whose candidates lie on one grid.

    Args:
        probability: candidate masks, what `box_quality_ranking` chose, in [0, 1].
        box_score: in [0, 1].
        box_iou: IoU of the candidate's box with the object's.
        valid: False for padding.
        box_mask: the object's own box on the grid.

    The mask is not yet cut to the box; multiply by `box_mask` for that.
    """
    kept = passing(box_score, valid, tau_box=rule.tau_box)
    weights = candidate_weights(box_score, box_iou, kept, rule)
    mask = fuse_masks(probability, weights, kept, rule)
    return Fused(mask, weights, kept, quality_of(mask, probability, box_score, kept, box_mask, rule))
