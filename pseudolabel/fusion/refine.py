"""A fused mask made to fit what is known beside it: the box's sides, and the colours of the photograph.

* `tight`: every side of a tight box touches its object, so the threshold is moved to where the mask reaches them best.
* `color`: before that, the random field of `pseudolabel.random_field` over a small grid, seeded by the fused mask:
  cells that look like the box's surroundings lose, cells that look like the surest part of the mask win.
"""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float32, UInt8
from PIL import Image

from pseudolabel import random_field
from pseudolabel.masks import Grid, resample

Method = Literal["none", "tight", "color"]


@dataclass(frozen=True, slots=True)
class Refinement:
    """How a fused mask is refined; the numbers were chosen by tests/benchmarks/fusion_ablation.py."""

    method: Method = "color"
    thresholds: tuple[float, ...] = (0.5, 0.4, 0.6, 0.3, 0.2)  # tried in this order, the first of equal ones wins
    threshold_cost: float = 0.02  # per step away from the first one, in IoU of the boxes
    margin: float = 0.2  # surroundings that colours are taken from, per side, in sides of the box
    max_cells: int = 96
    trust: float = 2.0  # in the log-odds of the fused mask, against colours and neighbours
    field: random_field.Refinement = field(default_factory=random_field.Refinement)


def refine(
    probability: Float32[np.ndarray, "h w"],
    window: Grid,
    refinement: Refinement,
    rgb: UInt8[np.ndarray, "H W 3"] | None = None,
    *,
    tau_pixel: float = 0.5,
) -> Float32[np.ndarray, "h w"]:
    """The refined probabilities at the window's pixels, of which 0.5 is the threshold.

    Args:
        rgb: the photograph, which `color` looks at.
        tau_pixel: what the fused probability has to exceed.

    Raises:
        ValueError: the method looks at colours and there is no photograph.
    """
    probability = shifted_to(probability, tau_pixel)
    if refinement.method == "none":
        return probability
    if refinement.method == "color":
        if rgb is None:
            raise ValueError("refining by color needs the image")
        probability = by_color(probability, window, refinement, rgb)
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
    probability: Float32[np.ndarray, "h w"], window: Grid, refinement: Refinement, image_rgb: UInt8[np.ndarray, "H W 3"]
) -> Float32[np.ndarray, "h w"]:
    """Probabilities after the mean-field pass on a grid over the box and its surroundings."""
    size_hw = (image_rgb.shape[0], image_rgb.shape[1])
    grid = _surroundings(window, size_hw, refinement)
    lab = random_field.rgb_to_lab(_average_color(image_rgb, grid))
    start = np.clip(resample(probability, window, grid), 0.02, 0.98)
    prior = (refinement.trust * np.log(start / (1 - start))).astype(np.float32)
    inside = _inside(grid, window)
    colours = random_field.Colours.of(lab, refinement.field)
    posterior = random_field.refine(prior, colours, inside, np.zeros_like(inside), refinement.field)
    return resample(posterior, grid, window)


def _filled_share(mask: Bool[np.ndarray, "h w"]) -> float:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not rows.size:
        return 0.0
    extent = (rows[-1] - rows[0] + 1) * (columns[-1] - columns[0] + 1)
    return float(extent / mask.size)


def _surroundings(window: Grid, size_hw: tuple[int, int], refinement: Refinement) -> Grid:
    x0, x1 = _widened(window.x0, window.width, size_hw[1], refinement.margin)
    y0, y1 = _widened(window.y0, window.height, size_hw[0], refinement.margin)
    width, height = min(x1 - x0, refinement.max_cells), min(y1 - y0, refinement.max_cells)
    return Grid(float(x0), float(y0), (x1 - x0) / width, (y1 - y0) / height, height, width)


def _widened(start: float, length: int, size: int, share: float) -> tuple[int, int]:
    margin = max(4, round(share * length))
    return max(0, int(start) - margin), min(size, int(start) + length + margin)


def _average_color(image_rgb: UInt8[np.ndarray, "H W 3"], grid: Grid) -> Float32[np.ndarray, "h w 3"]:
    x0, y0, x1, y1 = (round(edge) for edge in grid.extent_xyxy)
    crop = Image.fromarray(np.ascontiguousarray(image_rgb[y0:y1, x0:x1]))
    return np.asarray(crop.resize((grid.width, grid.height), Image.Resampling.BOX), dtype=np.float32)


def _inside(grid: Grid, window: Grid) -> Bool[np.ndarray, "h w"]:
    x = grid.x0 + (np.arange(grid.width) + 0.5) * grid.stride_x
    y = grid.y0 + (np.arange(grid.height) + 0.5) * grid.stride_y
    left, top, right, bottom = window.extent_xyxy
    return np.outer((y > top) & (y < bottom), (x > left) & (x < right))
