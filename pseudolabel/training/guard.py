"""Stop at the first loss or gradient that is not a number, and say which images it came from."""

import math
from collections.abc import Mapping, Sequence
from itertools import islice

from torch import nn

from pseudolabel.errors import InputError

_NAMED = 16


class NonFiniteLossError(InputError):
    """Training cannot go on: a loss, gradient or weight is NaN or infinite."""


def check_losses(losses: Mapping[str, float], *, step: int, images: Sequence[str]) -> None:
    """Pass if all losses are finite.

    Raises:
        NonFiniteLossError: names the losses, the step and the batch's images.
    """
    bad = [name for name, value in losses.items() if not math.isfinite(value)]
    if bad:
        raise NonFiniteLossError(f"step {step}: not finite: {', '.join(bad)}; images of the batch: {named(images)}")


def check_gradients(module: nn.Module, norm: float, *, step: int, images: Sequence[str]) -> None:
    """Pass if the total gradient norm is finite; else look for the parameters.

    Raises:
        NonFiniteLossError: names the parameters, the step and the batch's images.
    """
    if math.isfinite(norm):
        return
    bad = (
        name for name, value in module.named_parameters() if value.grad is not None and not value.grad.isfinite().all()
    )
    raise NonFiniteLossError(
        f"step {step}: gradients not finite, first in {', '.join(islice(bad, 3))}; images of the batch: {named(images)}"
    )


def named(images: Sequence[str]) -> str:
    """The distinct names in their order, the rest counted."""
    distinct = list(dict.fromkeys(images))
    rest = f" and {len(distinct) - _NAMED} more" if len(distinct) > _NAMED else ""
    return ", ".join(distinct[:_NAMED]) + rest
