"""Mask losses that need no mask: projection, pairwise by colour, affinity by a teacher's mask; and dice.

All take logits on the mask head's grid, (n, h, w), one plane per instance, and boxes as cells of that grid
(`box_cells`). They return one value per instance or, where the method normalises over all of them, one value.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pseudolabel.losses.color import (
    bottom_margin,
    color_edges,
    color_similarity,
    lab_cells,
    undirected_offsets,
    valid_cells,
)
from pseudolabel.losses.pairwise import (
    Windows,
    box_cells,
    box_windows,
    image_edge_weights,
    mask_edge_weights,
    scale_by_instance,
    sum_by_instance,
    true_pair_loss,
    weighted_pair_loss,
)

__all__ = [
    "Windows",
    "affinity_loss",
    "bottom_margin",
    "box_cells",
    "box_masks",
    "box_windows",
    "color_edges",
    "color_similarity",
    "dice_loss",
    "image_edge_weights",
    "lab_cells",
    "mask_edge_weights",
    "pairwise_loss",
    "projection_loss",
    "true_pair_loss",
    "undirected_offsets",
    "valid_cells",
    "weighted_pair_loss",
]


def dice_loss(
    x: Float[Tensor, "n *cells"], y: Float[Tensor, "n *cells"], weight: Float[Tensor, "n *cells"] | None = None
) -> Float[Tensor, "n"]:
    """1 - 2 sum(xy) / (sum x^2 + sum y^2 + 1e-5) of each row.

    Args:
        weight: of every cell in all three sums, 1 where not given.

    Source: CondInst (arXiv 2003.05664); the smoothing constant is the reference code's.
    """
    x, y = x.flatten(1).float(), y.flatten(1).float()
    counted = x, y
    if weight is not None:
        counted = x * weight.flatten(1), y * weight.flatten(1)
    overlap = (counted[0] * y).sum(dim=1)
    return 1 - 2 * overlap / ((counted[0] * x).sum(dim=1) + (counted[1] * y).sum(dim=1) + 1e-5)


def box_masks(cells: Int[Tensor, "n 4"], size_hw: tuple[int, int]) -> Bool[Tensor, "n h w"]:
    """True on every instance's box cells."""
    columns, rows = _box_projections(cells, size_hw)
    return rows[:, :, None] & columns[:, None, :]


def projection_loss(logits: Float[Tensor, "n h w"], cells: Int[Tensor, "n 4"]) -> Float[Tensor, "n"]:
    """Dice of the mask's and the box's shadow on the x axis, plus the same on the y axis.

    The maximum is taken over logits, the logistic being monotone, and passes its gradient to one cell per line.

    Source: BoxInst (arXiv 2012.02310), section 3.1.
    """
    columns, rows = _box_projections(cells, (logits.shape[1], logits.shape[2]))
    along_x = dice_loss(logits.max(dim=1).values.sigmoid(), columns)
    along_y = dice_loss(logits.max(dim=2).values.sigmoid(), rows)
    return along_x + along_y


def _box_projections(
    cells: Int[Tensor, "n 4"], size_hw: tuple[int, int]
) -> tuple[Bool[Tensor, "n w"], Bool[Tensor, "n h"]]:
    column = torch.arange(size_hw[1], device=cells.device)
    row = torch.arange(size_hw[0], device=cells.device)
    left, top, right, bottom = cells[:, :, None].unbind(1)
    return (column >= left) & (column < right), (row >= top) & (row < bottom)


def pairwise_loss(logits: Float[Tensor, "n h w"], windows: Windows, edges: Int[Tensor, "b h w"]) -> Float[Tensor, ""]:
    """Mean over all directed edges that start in a box and join like colours of -log P(both cells on one side).

    Args:
        windows: from `box_windows`, with the size and dilation that `edges` was made with.
        edges: from `color_edges`.

    Source: BoxInst (arXiv 2012.02310), section 3.2, with the released code's directed edges and normaliser.
    """
    weights = image_edge_weights(edges, windows)
    return weighted_pair_loss(logits, windows, weights) / weights.sum().clamp(min=1)


def affinity_loss(
    logits: Float[Tensor, "n h w"],
    windows: Windows,
    masks: Float[Tensor, "n h w"],
    valid: Bool[Tensor, "b h w"],
    quality: Float[Tensor, "n"],
) -> Float[Tensor, ""]:
    """Quality-weighted mean over the instances with a pseudo mask of each one's mean pair loss.

    Args:
        masks: binary pseudo masks, zero outside their box.
        quality: weight of each instance, 0 where it has no pseudo mask.

    Source: BoxTeacher (arXiv 2210.05174), noise-reduced mask affinity loss.
    """
    weights = mask_edge_weights(masks, valid, windows)
    share = quality / sum_by_instance(weights, windows).clamp(min=1)
    total = weighted_pair_loss(logits, windows, scale_by_instance(weights, share, windows))
    return total / (quality > 0).sum().clamp(min=1)
