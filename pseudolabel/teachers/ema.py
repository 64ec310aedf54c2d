"""The teacher as a moving average of its student."""

import copy

import torch
from torch import Tensor, nn


def average_of(network: nn.Module) -> nn.Module:
    """A copy that is never trained by gradients."""
    return copy.deepcopy(network).requires_grad_(False)


def momentum_at(step: int, momentum: float = 0.999, *, ramp: float = 10.0) -> float:
    """min(momentum, 1 - ramp / (step + ramp)): 0 at the first step, which copies the student.

    While the second part is the smaller one, the average reaches back over one `ramp`-th of the steps so far. The
    released code of BoxTeacher has a ramp of 1: then a training that is shorter than 1 / (1 - momentum) steps ends with
    the plain mean of all its weights, those of its very beginning included.
    """
    return min(momentum, 1 - ramp / (step + ramp))


@torch.no_grad()
def update_average(average: nn.Module, network: nn.Module, keep: float, *, buffers: bool = True) -> None:
    """average <- keep * average + (1 - keep) * network, for parameters and, if wanted, floating buffers.

    Source: BoxTeacher (arXiv 2210.05174); the released code leaves the buffers out.
    """
    means, values = list[Tensor](average.parameters()), list[Tensor](network.parameters())
    if buffers:
        means, values = means + list(average.buffers()), values + list(network.buffers())
    for mean, value in zip(means, values, strict=True):
        if value.is_floating_point():
            mean.lerp_(value, 1 - keep)
        else:
            mean.copy_(value)
