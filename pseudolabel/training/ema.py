"""A moving average of a network: the teacher of its own student, and the model that is kept."""

import copy
from typing import Literal, TypeVar

import torch
from torch import nn

ModuleT = TypeVar("ModuleT", bound=nn.Module)


def average_of(network: ModuleT) -> ModuleT:
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
def update_average(
    average: nn.Module, network: nn.Module, keep: float, *, buffers: Literal["average", "copy", "leave"] = "average"
) -> None:
    """average <- keep * average + (1 - keep) * network, for the parameters that are trained.

    Args:
        buffers: floating ones are averaged and others copied, all are copied, or all are left as they are.

    Source: BoxTeacher (arXiv 2210.05174); the released code leaves the buffers.
    """
    for mean, value in zip(average.parameters(), network.parameters(), strict=True):
        if value.requires_grad:
            mean.lerp_(value, 1 - keep)
    if buffers == "leave":
        return
    for kept, now in zip(average.buffers(), network.buffers(), strict=True):
        if buffers == "average" and now.is_floating_point():
            kept.lerp_(now, 1 - keep)
        else:
            kept.copy_(now)
