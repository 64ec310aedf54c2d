"""How good a fused mask probably is: the scores of BoxSeg (paper and released code) and of BoxTeacher.

Shapes are those of `pseudolabel.fusion.fuse`: n objects, k candidates, one grid of h x w cells per object.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32

from pseudolabel.fusion.arrays import Array, namespace
from pseudolabel.fusion.fuse import TAU_PIXEL

EPSILON = 1e-6  # BoxTeacher's, in the mean over a mask's pixels
_SURE = 0.05  # so near to 0 or 1 a probability tells no doubt
_LEAST_UNSURE = 0.8  # unsure cells per side of the contour; 99 of 100 brought masks have less, networks' 1 to 8


@dataclass(frozen=True, slots=True)
class Quality:
    """A score and the two averages that it is the geometric mean of."""

    score: Float[Array, "n"]
    box: Float[Array, "n"]
    pixel: Float[Array, "n"]


class Opinion(NamedTuple):
    """What some probabilities say about a mask, each in [0, 1]."""

    expected_iou: float
    mean_inside: float


def opinion(
    probability: Float32[np.ndarray, "*cells"], mask: Bool[np.ndarray, "*cells"] | Float32[np.ndarray, "*cells"]
) -> Opinion:
    """The IoU with the truth that a mask would have on average if the probabilities were true, and their mean inside.

    The former is the ratio of expectations: probability inside the mask over its area and the probability left outside.
    1 for a mask that is sure of itself, 0 for an empty one. Other than the mean inside it also counts what may be
    missing.

    Args:
        mask: of cells that it covers in part, the share of each.
    """
    inside, area = float((probability * mask).sum()), float(mask.sum())
    union = area + float(probability.sum()) - inside
    return Opinion(inside / union if union > 0 else 0.0, inside / area if area > 0 else 0.0)


def outline_iou(mask: Bool[np.ndarray, "h w"]) -> float:
    """The IoU that is left of a perfect mask because it is made of whole pixels; 1 for an empty one.

    The true outline runs within half a pixel of the mask's, on either side, so that on average a quarter of a pixel is
    wrong all along it, one half of that too much and the other missing: (A - P / 8) / (A + P / 8) with area A and P
    sides of pixels around it.
    """
    if not mask.any():
        return 1.0
    edges = (mask[0], mask[-1], mask[:, 0], mask[:, -1], mask[1:] != mask[:-1], mask[:, 1:] != mask[:, :-1])
    wrong = sum(int(np.count_nonzero(edge)) for edge in edges) / 8
    area = int(np.count_nonzero(mask))
    return (area - wrong) / (area + wrong)


def tells_doubt(probability: Float32[np.ndarray, "h w"]) -> bool:
    """Whether probabilities are more than a decision: unsure of more cells than those that a contour runs through.

    A mask of zeros and ones that was brought on a coarser grid has shares of cells along its contour, and nowhere else.
    """
    inside = probability > 0.5
    sides = np.count_nonzero(inside[1:] != inside[:-1]) + np.count_nonzero(inside[:, 1:] != inside[:, :-1])
    unsure = np.count_nonzero((probability > _SURE) & (probability < 1 - _SURE))
    return bool(unsure > _LEAST_UNSURE * sides)


def consensus_score(own: Opinion, by_source: Sequence[Opinion], spread: float | None, *, outline: float) -> float:
    """The geometric mean of four opinions about a mask, each in [0, 1], one of them less what its outline leaves open.

    Args:
        own: of the refined probabilities; its two numbers are an opinion each.
        by_source: of each source's own probabilities; one opinion together, the geometric mean of the two numbers'
            means over the sources.
        spread: standard deviation among the candidates of one source, averaged over the box; None where no source has
            several: then there are three opinions. The fourth is (1 - 2 x spread)^2, which is 0 where a coin was
            tossed for every cell.
        outline: `outline_iou` of the mask, a factor of the first opinion.
    """
    expected, inside = (sum(values) / len(by_source) for values in zip(*by_source, strict=True))
    believed = [*own, math.sqrt(expected * inside)]
    if spread is not None:
        believed.append((1 - 2 * spread) ** 2)
    return math.pow(outline * math.prod(believed), 1 / len(believed))


def mean_kept(values: Float[Array, "n k"], kept: Bool[Array, "n k"]) -> Float[Array, "n"]:
    """Mean over the kept candidates, 0 where there are none."""
    return namespace(values).where(kept, values, 0.0).sum(axis=1) / kept.sum(axis=1, dtype=values.dtype).clip(min=1)


def mean_in_mask(
    fused: Float[Array, "n h w"], box_mask: Bool[Array, "n h w"], *, tau_pixel: float = TAU_PIXEL
) -> Float[Array, "n"]:
    """Mean probability of the pixels that are both in the box and above the threshold, 0 where there are none."""
    inside = box_mask & (fused > tau_pixel)
    mass = namespace(fused).where(inside, fused, 0.0).sum(axis=(1, 2))
    return mass / inside.sum(axis=(1, 2), dtype=fused.dtype).clip(min=1)


def mask_quality_score(
    box_score: Float[Array, "n k"],
    kept: Bool[Array, "n k"],
    fused: Float[Array, "n h w"],
    box_mask: Bool[Array, "n h w"],
    *,
    tau_pixel: float = TAU_PIXEL,
) -> Quality:
    """Mask-Quality Scoring: mean box score of the kept candidates with mean probability inside the box.

    Source: BoxSeg, eq. 5.
    """
    box = mean_kept(box_score, kept)
    pixel = mean_in_mask(fused, box_mask, tau_pixel=tau_pixel)
    return Quality((box * pixel) ** 0.5, box, pixel)


def mask_confidence_paper(
    box_score: Float[Array, "n"],
    mask: Float[Array, "n h w"],
    box_mask: Bool[Array, "n h w"],
    *,
    tau_pixel: float = TAU_PIXEL,
) -> Float[Array, "n"]:
    """Mask-aware confidence of single detections, the mean taken inside the given box. Source: BoxTeacher's paper."""
    return (box_score * mean_in_mask(mask, box_mask, tau_pixel=tau_pixel)) ** 0.5


def mean_of_mask(mask: Float[Array, "n h w"], *, tau_pixel: float = TAU_PIXEL) -> Float[Array, "n"]:
    """Mean probability above the threshold, with BoxTeacher's epsilon in the denominator."""
    above = mask > tau_pixel
    mass = namespace(mask).where(above, mask, 0.0).sum(axis=(1, 2))
    return mass / (above.sum(axis=(1, 2), dtype=mask.dtype) + EPSILON)


def mask_confidence_code(
    box_score: Float[Array, "n"], mask: Float[Array, "n h w"], *, tau_pixel: float = TAU_PIXEL
) -> Float[Array, "n"]:
    """Mask-aware confidence as BoxTeacher's code weighs pseudo masks: the box score enters under two roots."""
    return (box_score**0.5 * mean_of_mask(mask, tau_pixel=tau_pixel)) ** 0.5


def detection_rank(
    box_score: Float[Array, "n"], mask: Float[Array, "n h w"], *, tau_pixel: float = TAU_PIXEL
) -> Float[Array, "n"]:
    """The order in which detections choose objects in `bpma`, and their final score at test time.

    Source: the code of BoxTeacher and of BoxSeg.
    """
    return (box_score * mean_of_mask(mask, tau_pixel=tau_pixel)) ** 0.5


def vote_score(
    box_score: Float[Array, "n k"],
    kept: Bool[Array, "n k"],
    probability: Float[Array, "n k h w"],
    voted: Bool[Array, "n h w"],
    *,
    tau_pixel: float = TAU_PIXEL,
) -> Float[Array, "n"]:
    """The released code's score: how far each kept candidate agrees with the voted mask, averaged.

    Per candidate g = IoU with the voted mask * (probability above the threshold / area of the voted mask), and the
    score is the mean of sqrt((s + 1) / 2 * g). Source: BoxSeg's released code.
    """
    above = probability > tau_pixel
    agreement = iou_with(above, voted)
    mass = namespace(probability).where(above, probability, 0.0).sum(axis=(2, 3))
    area = voted.sum(axis=(1, 2), dtype=mass.dtype).clip(min=1)
    return mean_kept(((box_score + 1) / 2 * agreement * mass / area[:, None]) ** 0.5, kept)


def iou_with(masks: Bool[Array, "n k h w"], one: Bool[Array, "n h w"]) -> Float[Array, "n k"]:
    """IoU of every candidate with its object's one mask; 0 where both are empty."""
    intersection = (masks & one[:, None]).sum(axis=(2, 3))
    union = (masks | one[:, None]).sum(axis=(2, 3))
    return intersection / union.clip(min=1)
