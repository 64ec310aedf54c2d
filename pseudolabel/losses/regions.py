"""Box-supervised mask losses of the systems that BoxInst is compared with: BBTP's bags and smoothness, and the level
set of BoxLevelSet and Box2Mask.

As in `losses.boxes` all take logits on the mask head's grid, (n, h, w), and boxes as cells of that grid; they return
one value per instance.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from pseudolabel.losses.boxes import box_masks
from pseudolabel.losses.color import pair_slices, undirected_offsets

_NOWHERE = -1e4  # a logit that no maximum takes


def bag_loss(logits: Float[Tensor, "n h w"], cells: Int[Tensor, "n 4"]) -> Float[Tensor, "n"]:
    """Cross-entropy of bags of cells: mean over the lines that cross the box, plus mean over those that miss it.

    A bag is as much of the object as its surest cell. A row or column of the box holds the object somewhere in the box;
    one of the grid that misses the box holds none of it. Every cell outside the box is in a bag of the second kind.

    Source: Hsu et al., BBTP (NeurIPS 2019), the unary term. There the grid is a proposal's; on a whole image nearly all
    lines miss the box, so each of the two kinds has its own mean.
    """
    inside = box_masks(cells, (logits.shape[1], logits.shape[2]))
    within, total = logits.masked_fill(~inside, _NOWHERE), logits.new_zeros(len(logits))
    for axis in (1, 2):
        crosses = inside.any(dim=axis)
        held = F.softplus(-within.amax(dim=axis)) * crosses
        free = F.softplus(logits.amax(dim=axis)) * ~crosses
        total = total + _mean(held, crosses) / 2 + _mean(free, ~crosses) / 2
    return total


def smoothness_loss(logits: Float[Tensor, "n h w"], cells: Int[Tensor, "n 4"]) -> Float[Tensor, "n"]:
    """Mean squared difference of probability between the box's cells and their eight neighbours.

    Source: Hsu et al., BBTP (NeurIPS 2019), the pairwise term.
    """
    size_hw = (logits.shape[1], logits.shape[2])
    probability, inside = logits.sigmoid(), box_masks(cells, size_hw)
    total, count = (logits.new_zeros(len(logits)) for _ in range(2))
    for offset in undirected_offsets(3, 1):
        first, second = pair_slices(offset, *size_hw)
        ends = inside[(..., *first)].to(logits.dtype) + inside[(..., *second)].to(logits.dtype)
        steps = probability[(..., *first)] - probability[(..., *second)]
        total, count = total + (ends * steps**2).sum(dim=(1, 2)), count + ends.sum(dim=(1, 2))
    return total / count.clamp(min=1)


def level_set_energy(
    logits: Float[Tensor, "n h w"],
    cells: Int[Tensor, "n 4"],
    planes: Float[Tensor, "b c h w"],
    image: Int[Tensor, "n"],
) -> Float[Tensor, "n"]:
    """Chan and Vese's region energy in the box: mean over its cells and over the planes of

        m |u - mean of u in the mask|^2 + (1 - m) |u - mean of u in the rest of the box|^2

    It is 0 where the picture is of two values and the mask tells them apart, and no larger than the variance of u.

    Args:
        planes: what should be alike on either side, such as colours.
        image: which of them each box is on.

    Source: Li et al., BoxLevelSet (ECCV 2022) and Box2Mask (arXiv 2212.01579); as in their code without the length of
    the curve.
    """
    energy = [
        _region_energy(*_cut(one, box, planes[place])) for one, box, place in zip(logits, cells, image, strict=True)
    ]
    return torch.stack(energy) if energy else logits.sum(dim=(1, 2))


def _cut(logits: Tensor, box: Tensor, planes: Tensor) -> tuple[Tensor, Tensor]:
    left, top, right, bottom = box.tolist()
    return logits[top:bottom, left:right], planes[:, top:bottom, left:right]


def _region_energy(logits: Float[Tensor, "h w"], planes: Float[Tensor, "c h w"]) -> Float[Tensor, ""]:
    mask = logits.sigmoid()
    energy = logits.new_zeros(())
    for share in (mask, 1 - mask):
        mean = (share * planes).sum(dim=(1, 2), keepdim=True) / share.sum().clamp(min=1e-5)
        energy = energy + (share * (planes - mean) ** 2).mean(dim=(1, 2)).mean()
    return energy


def _mean(values: Float[Tensor, "n k"], counted: Bool[Tensor, "n k"]) -> Float[Tensor, "n"]:
    return values.sum(dim=1) / counted.sum(dim=1).clamp(min=1)
