"""Tiny numbers as zero, for as long as a training lasts."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def without_denormals() -> Iterator[None]:
    """Early gradients are so small that the processor's slow path for denormal numbers makes a step up to ten times as
    long. The setting is the whole thread's; afterwards it is the usual one again.
    """
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)
