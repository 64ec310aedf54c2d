"""Prototypes of classes: unit centres of a network's features, and what of a picture lies nearer to one class's.

Source: SIM (arXiv 2303.08578), semantic-aware mask generation.
"""

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from pseudolabel.config import Config, option
from pseudolabel.training.processes import mean_of_all


class PrototypeRule(Config):
    """How many prototypes, and how they follow the features."""

    per_class: int = option(10, "prototypes of every class", ge=1)
    momentum: float = option(0.999, "of the prototypes: the largest", ge=0, lt=1)
    ramp: float = option(10.0, "before momentum is reached, they go back over one part in so many of the updates", ge=1)
    epsilon: float = option(0.05, "how soft the assignment of cells to prototypes is", gt=0)
    iterations: int = option(3, "of Sinkhorn and Knopp", ge=1)


def sinkhorn(similarity: Float[Tensor, "n l"], *, epsilon: float, iterations: int) -> Float[Tensor, "n l"]:
    """The plan that moves n cells of mass 1 / n to l centres of mass 1 / l: diag(u) exp(similarity / epsilon) diag(v).

    Each iteration gives every centre its mass, then every cell, so that the rows' sums are exact and the columns' as
    exact as the iterations are many. In logarithms, which no similarity overflows.

    Source: Sinkhorn and Knopp; entropic optimal transport.
    """
    plan = similarity / epsilon
    for _ in range(iterations):
        plan = plan - plan.logsumexp(dim=0, keepdim=True) - math.log(plan.shape[1])
        plan = plan - plan.logsumexp(dim=1, keepdim=True) - math.log(plan.shape[0])
    return plan.exp()


class Prototypes(nn.Module):
    """Unit vectors, the same number for every class, that follow the mean features of what is assigned to them.

    They are buffers: a checkpoint has them, and no gradient reaches them.
    """

    centres: Tensor  # (c, l, d)
    updates: Tensor  # (c, l): how often each has moved

    def __init__(self, classes: int, width: int, rule: PrototypeRule) -> None:
        super().__init__()
        self.rule = rule
        start = nn.init.trunc_normal_(torch.empty(classes, rule.per_class, width), std=0.02)
        self.register_buffer("centres", F.normalize(start, dim=2))
        self.register_buffer("updates", torch.zeros(classes, rule.per_class, dtype=torch.int64))

    @property
    def known(self) -> Bool[Tensor, "c"]:
        """Classes of which something was seen."""
        return (self.updates > 0).any(dim=1)

    def nearest(self, cells: Float[Tensor, "d *grid"]) -> Float[Tensor, "c *grid"]:
        """Of every cell and class the largest cosine with a prototype, for cells of unit length.

        A prototype that never got a cell points anywhere, and has no say: -1.
        """
        with torch.autocast(cells.device.type, enabled=False):
            cosine = torch.einsum("cld,dn->cln", self.centres, cells.flatten(1))
        cosine = torch.where(self.updates[..., None] > 0, cosine, -1.0)
        return cosine.amax(dim=1).view(-1, *cells.shape[1:])

    @torch.no_grad()
    def update(self, cells: Float[Tensor, "n d"], labels: Int[Tensor, "n"]) -> None:
        """Move the prototypes towards the means of the cells that each gets, and back to unit length.

        The cells of a class go to its prototypes by a balanced plan, each to the one with the largest part of it. Every
        process has to call this at every step; the means are those of all their cells. A prototype that gets its first
        cells becomes their mean, another keeps min(momentum, 1 - ramp / (updates + ramp)) of what it was.
        """
        rule = self.rule
        with torch.autocast(cells.device.type, enabled=False):  # which would count in 8 bits
            sums = mean_of_all(self._sums(cells.float(), labels))
        got = sums[..., -1] > 0
        means = sums[..., :-1] / sums[..., -1:].clamp(min=1e-6)
        keep = (1 - rule.ramp / (self.updates + rule.ramp)).clamp(max=rule.momentum)[..., None].to(means)
        moved = F.normalize(keep * self.centres + (1 - keep) * means, dim=2)
        self.centres.copy_(torch.where(got[..., None], moved, self.centres))
        self.updates += got

    def _sums(self, cells: Float[Tensor, "n d"], labels: Int[Tensor, "n"]) -> Float[Tensor, "c l e"]:
        """Of every prototype the sum of its cells, and behind it their number."""
        sums = F.pad(torch.zeros_like(self.centres), (0, 1))
        for label in torch.unique(labels).tolist():
            mine = cells[labels == label]
            similarity = mine @ self.centres[label].T
            plan = sinkhorn(similarity, epsilon=self.rule.epsilon, iterations=self.rule.iterations)
            owner = F.one_hot(plan.argmax(dim=1), self.rule.per_class).to(mine)
            sums[label] = owner.T @ F.pad(mine, (0, 1), value=1.0)
        return sums
