"""A fused mask made to fit what is known beside it: the box's sides, and the colours of the photograph.

* `tight`: every side of a tight box touches its object, so the threshold is moved to where the mask reaches them best.
* `color`: before that, the random field of `pseudolabel.random_field` over a small grid, seeded by the fused mask:
  cells that look like the box's surroundings lose, cells that look like the surest part of the mask win.
"""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float32

from pseudolabel import random_field
from pseudolabel.fusion.surroundings import Surroundings
from pseudolabel.masks import Grid, resample

Method = Literal["none", "tight", "color"]


@dataclass(frozen=True, slots=True)
class Refinement:
    """How a fused mask is refined; the numbers were chosen by tests/benchmarks/fusion_ablation.py."""

    method: Method = "color"
    thresholds: tuple[float, ...] = (0.5, 0.4, 0.6, 0.3, 0.2)  # tried in this order, the first of equal ones wins
    threshold_cost: float = 0.02  # per step away from the first one, in IoU of the boxes
    trust: float = 2.0  # in the log-odds of the fused mask, against colours and neighbours
    field: random_field.Refinement = field(default_factory=random_field.Refinement)


def refine(
    probability: Float32[np.ndarray, "h w"],
    window: Grid,
    refinement: Refinement,
    surroundings: Surroundings | None = None,
    *,
    tau_pixel: float = 0.5,
) -> Float32[np.ndarray, "h w"]:
    """The refined probabilities at the window's pixels, of which 0.5 is the threshold.

    Args:
        surroundings: the colours of the box and around it, which `color` looks at.
        tau_pixel: what the fused probability has to exceed.

    Raises:
        ValueError: the method looks at colours and there are none.
    """
    probability = shifted_to(probability, tau_pixel)
    if refinement.method == "none":
        return probability
    if refinement.method == "color":
        if surroundings is None:
            raise ValueError("refining by color needs the image")
        probability = by_color(probability, window, refinement, surroundings)
    return shifted_to(probability, tight_threshold(probability, refinement))


def tight_threshold(probability: Float32[np.ndarray, "h w"], refinement: Refinement) -> float:
    """The threshold whose mask's extent fills the window best, each step away from 0.5 at a small cost."""
    gains = [
        _filled_share(probability > threshold) - refinement.threshold_cost * step
        for step, threshold in enumerate(refinement.thresholds)
    ]
    return refinement.thresholds[int(np.argmax(gains))]


def shifted_to(probability: Float32[np.ndarray, "h w"], threshold: float) -> Float32[np.ndarray, "h w"]:
    """Probabilities with the same order, of which 0.5 is what `threshold` was."""
    if threshold == 0.5:
        return probability
    odds = probability * (1 - threshold)
    against = (1 - probability) * threshold
    shifted: Float32[np.ndarray, "h w"] = odds / (odds + against)
    return shifted


def by_color(
    probability: Float32[np.ndarray, "h w"], window: Grid, refinement: Refinement, surroundings: Surroundings
) -> Float32[np.ndarray, "h w"]:
    """Probabilities after the mean-field pass on a grid over the box and its surroundings."""
    grid = surroundings.grid
    start = np.clip(resample(probability, window, grid), 0.02, 0.98)
    prior = (refinement.trust * np.log(start / (1 - start))).astype(np.float32)
    inside = surroundings.inside(window)
    colours = random_field.Colours.of(surroundings.lab, refinement.field, surroundings.cluster.astype(np.int32))
    posterior = random_field.refine(prior, colours, inside, np.zeros_like(inside), refinement.field)
    return resample(posterior, grid, window)


def _filled_share(mask: Bool[np.ndarray, "h w"]) -> float:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not rows.size:
        return 0.0
    extent = (rows[-1] - rows[0] + 1) * (columns[-1] - columns[0] + 1)
    return float(extent / mask.size)
