"""Which device a run uses, said aloud; a device that was asked for and is not there is an error."""

import os

from pseudolabel.errors import MachineError


def available_cores() -> int:
    """Cores that this process may use: a scheduler may have given it fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def resolve_device(wanted: str, stage_uses_gpu: bool) -> str:
    """`auto` as what it means on this machine; anything else is checked.

    Raises:
        MachineError: a CUDA device was asked for and torch sees none, or not that many.
    """
    if wanted == "cpu" or (wanted == "auto" and not stage_uses_gpu):
        return "cpu"
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if wanted == "auto":
        return "cuda" if count else "cpu"
    if not count:
        raise MachineError(
            f"--device {wanted}: torch {torch.__version__} sees no CUDA device; use --device cpu or auto"
        )
    _, _, index = wanted.partition(":")
    if index and int(index) >= count:
        raise MachineError(f"--device {wanted}: this machine has {count} CUDA devices, cuda:0 to cuda:{count - 1}")
    return wanted
