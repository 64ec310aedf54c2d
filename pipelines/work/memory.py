"""What to lower when a batch does not fit."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from pseudolabel.errors import MachineError


class BatchOptions(Protocol):
    """The options that decide how much memory a step takes."""

    @property
    def batch_size(self) -> int: ...

    @property
    def image_px(self) -> int: ...

    @property
    def precision(self) -> str: ...


@contextmanager
def memory_errors_explained(config: BatchOptions) -> Iterator[None]:
    """A step that does not fit the memory ends with the settings to lower.

    Raises:
        MachineError: the GPU's or the machine's memory was full.
    """
    import torch

    try:
        yield
    except torch.OutOfMemoryError as error:
        raise MachineError(f"the GPU's memory is full ({_first_line(error)}): {smaller(config)}") from None
    except RuntimeError as error:
        if "can't allocate memory" not in str(error):
            raise
        raise MachineError(f"this machine's memory is full ({_first_line(error)}): {smaller(config)}") from None


def smaller(config: BatchOptions) -> str:
    """Which options to lower."""
    names = ["batch_size"] if config.batch_size > 1 else []
    lower = " or ".join(f"--{name.replace('_', '-')} (now {getattr(config, name)})" for name in [*names, "image_px"])
    return f"lower {lower}" + ("" if config.precision == "bf16" else ", or say --precision bf16")


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0][:160]
