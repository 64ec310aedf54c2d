"""What trains the two heads: differences of displacements, and a class-balanced cross-entropy of affinities."""

from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pseudolabel.siseg.pairs import PairSets, pair_offsets, pair_sets, partners, path_maximum, rank_cells

EPSILON = 1e-5


class SisegLosses(NamedTuple):
    """The three terms of a batch."""

    object_displacement: Float[Tensor, ""]
    background_displacement: Float[Tensor, ""]
    boundary: Float[Tensor, ""]


def siseg_losses(
    displacement: Float[Tensor, "b 2 h w"],
    boundary_logits: Float[Tensor, "b h w"],
    labels: Int[Tensor, "b h w"],
    *,
    radius: int = 10,
    owners: Int[Tensor, "b 2 h w"] | None = None,
) -> SisegLosses:
    """The terms L_Ob+D, L_Ba+D and L_B of a batch; a batch without a kind of pair has 0 in its term.

    Args:
        displacement: (dy, dx) towards the centroid, in cells.
        boundary_logits: before the sigmoid.
        labels: 0 background, 255 ignore, on the same grid.
        radius: of the pairs, in cells.
        owners: which boxes hold each cell; see `pair_sets`.
    """
    sets = pair_sets(labels, radius, owners)
    inside, outside = displacement_losses(displacement, sets, radius)
    return SisegLosses(inside, outside, boundary_loss(boundary_logits.sigmoid(), sets, radius))


def displacement_losses(
    displacement: Float[Tensor, "b 2 h w"], sets: PairSets, radius: int
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Mean absolute error per component of D(a) - D(b) against b - a on objects, and against 0 on background.

    A field that points every cell of an object to one point, D(v) = c - v, has no error.
    """
    inside, outside = _PairDifferences.apply(displacement, sets.object_same, sets.background_same, radius)
    return (
        inside / (2 * sets.object_same.sum() + EPSILON),
        outside / (2 * sets.background_same.sum() + EPSILON),
    )


def boundary_loss(boundary: Float[Tensor, "b h w"], sets: PairSets, radius: int) -> Float[Tensor, ""]:
    """Cross-entropy of affinities, half a weight for each of the two kinds of equal pairs and one for unequal pairs.

    The affinity of a pair is 1 - the highest boundary on its path, and the highest cell alone gets the gradient.
    """
    terms = _PairSurprise.apply(boundary, sets, radius)
    counts = torch.stack([mask.sum() for mask in sets]) + EPSILON
    loss: Tensor = (terms * terms.new_tensor([0.5, 0.5, 1.0]) / counts).sum()
    return loss


class _PairDifferences(torch.autograd.Function):
    """Summed absolute errors on both sets; they are piecewise linear, so signs make the gradient."""

    @staticmethod
    def forward(ctx: Any, displacement: Tensor, inside: Tensor, outside: Tensor, radius: int) -> tuple[Tensor, Tensor]:
        sums = displacement.new_zeros(2)
        gradients = displacement.new_zeros((2, *displacement.shape))
        here = partners(displacement, (0, 0), radius)
        for index, offset in enumerate(pair_offsets(radius)):
            difference = here - partners(displacement, offset, radius)
            wanted = difference.new_tensor(offset).view(1, 2, 1, 1)
            for kind, (mask, error) in enumerate(((inside, difference - wanted), (outside, difference))):
                error = error * mask[:, index].unsqueeze(1)
                sums[kind] += error.abs().sum()
                signs = error.sign_()
                partners(gradients[kind], (0, 0), radius).add_(signs)
                partners(gradients[kind], offset, radius).sub_(signs)
        ctx.save_for_backward(gradients)
        return sums[0].clone(), sums[1].clone()

    @staticmethod
    def backward(ctx: Any, *outer: Any) -> tuple[Tensor, None, None, None]:
        (gradients,) = ctx.saved_tensors
        return outer[0] * gradients[0] + outer[1] * gradients[1], None, None, None


class _PairSurprise(torch.autograd.Function):
    """Summed -log likelihoods of the three sets, one offset at a time, so that no tape holds 152 grids."""

    @staticmethod
    def forward(ctx: Any, boundary: Tensor, sets: PairSets, radius: int) -> Tensor:
        ranks, order = rank_cells(boundary)
        values = boundary.flatten(1)
        sums = boundary.new_zeros(3)
        gradients = boundary.new_zeros((3, *values.shape))
        for index, offset in enumerate(pair_offsets(radius)):
            winners = order.gather(1, path_maximum(ranks, offset, radius).flatten(1).long())
            highest = values.gather(1, winners)
            for kind, mask in enumerate(sets):
                apart = kind == 2
                chosen = mask[:, index].flatten(1)
                likelihood = (highest if apart else 1 - highest) + EPSILON
                sums[kind] -= (likelihood.log() * chosen).sum()
                gradients[kind].scatter_add_(1, winners, (chosen / likelihood).mul_(-1.0 if apart else 1.0))
        ctx.save_for_backward(gradients.view(3, *boundary.shape))
        return sums

    @staticmethod
    def backward(ctx: Any, *outer: Any) -> tuple[Tensor, None, None]:
        (gradients,) = ctx.saved_tensors
        return (outer[0].view(3, 1, 1, 1) * gradients).sum(0), None, None
