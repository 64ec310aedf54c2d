"""Mean field of a random field over a crop's cells: neighbours of one colour should be on one side of a mask.

Per pass, with p the network's probability and k = exp(-|Lab difference|^2 / (2 scale^2)) over the eight neighbours at
distances 1, 2 and 4:

    q_i <- sigmoid(logit(p_i) / 2 + weight * sum_j k_ij (2 q_j - 1) / sum_j k_ij)

The idea of refining what the moving average teaches is Mask Auto-Labeler's; the field is this project's own.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from pseudolabel.losses.color import undirected_offsets

DISTANCES = (1, 2, 4)
PASSES = 5
SCALE = 3.0  # of Lab differences
_CLIP = 1e-3


@torch.no_grad()
def mean_field(
    probability: Float[Tensor, "b h w"],
    lab: Float[Tensor, "b 3 h w"],
    valid: Bool[Tensor, "b h w"],
    box: Float[Tensor, "b h w"],
    *,
    weight: float,
) -> Float[Tensor, "b h w"]:
    """Foreground probabilities after `PASSES` passes; outside `box` they are and stay zero.

    Args:
        valid: cells that show the image; others are nobody's neighbour.
        weight: of the neighbours; 0 leaves the threshold one half where it is.
    """
    offsets = [
        offset
        for distance in DISTANCES
        for one in undirected_offsets(dilation=distance)
        for offset in (one, _back(one))
    ]
    kernels = [_kernel(lab, valid.float(), offset) for offset in offsets]
    total = torch.stack(kernels).sum(dim=0).clamp(min=1e-3)
    unary = torch.logit(probability, eps=_CLIP) / 2
    current = probability
    for _ in range(PASSES):
        sides = 2 * current - 1
        parts = [kernel * shifted(sides, offset) for kernel, offset in zip(kernels, offsets, strict=True)]
        message = torch.stack(parts).sum(dim=0)
        current = torch.sigmoid(unary + weight * message / total) * box
    return current


def shifted(values: Float[Tensor, "b h w"], offset: tuple[int, int]) -> Float[Tensor, "b h w"]:
    """At every cell the value of its neighbour `offset` (rows, columns) away, zero beyond the edge."""
    rows, columns = offset
    height, width = values.shape[-2:]
    padded = torch.nn.functional.pad(values, (abs(columns), abs(columns), abs(rows), abs(rows)))
    top, left = abs(rows) + rows, abs(columns) + columns
    return padded[..., top : top + height, left : left + width]


def _kernel(
    lab: Float[Tensor, "b 3 h w"], valid: Float[Tensor, "b h w"], offset: tuple[int, int]
) -> Float[Tensor, "b h w"]:
    distance = (lab - shifted(lab, offset)).square().sum(dim=1)
    return torch.exp(-distance / (2 * SCALE**2)) * shifted(valid, offset)


def _back(offset: tuple[int, int]) -> tuple[int, int]:
    return -offset[0], -offset[1]
