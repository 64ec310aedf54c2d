"""Weights of torch models: read without unpickling code, checked before they touch a model."""

from collections.abc import Mapping
from pathlib import Path

import torch
from jaxtyping import Shaped
from safetensors import SafetensorError
from safetensors.torch import load_file

from pseudolabel.errors import InputError

StateDict = dict[str, Shaped[torch.Tensor, "..."]]
_SHOWN = 5


def read_state_dict(path: Path) -> StateDict:
    """The tensors of a `.safetensors` file, or of a `.pt` file through torch's restricted unpickler.

    A `.pt` may hold them under the key `state_dict`, as trainers write it.

    Raises:
        InputError: missing, no checkpoint, or something else than names with tensors.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such weights file")
    try:
        loaded = load_file(path) if path.suffix == ".safetensors" else _torch_load(path)
    except SafetensorError as error:
        raise InputError(f"{path}: not a checkpoint ({error})") from None
    loaded = loaded.get("state_dict", loaded) if isinstance(loaded, dict) else loaded
    if not isinstance(loaded, dict) or not loaded or not all(isinstance(v, torch.Tensor) for v in loaded.values()):
        raise InputError(f"{path}: expected a state dict (names with tensors), got {_kind(loaded)}")
    return loaded


def load_weights_file(model: torch.nn.Module, path: Path) -> None:
    """Fill a model from a file: `read_state_dict`, then `load_weights`, with what they raise."""
    load_weights(model, read_state_dict(path), where=str(path))


def load_weights(
    model: torch.nn.Module, state: Mapping[str, torch.Tensor], *, where: str, partly: bool = False
) -> None:
    """Put the tensors into a model whose names and shapes are exactly theirs.

    Args:
        where: whence they come, for messages.
        partly: take what the model wants and leave the rest, such as a classifier's last layers.

    Raises:
        InputError: names or shapes differ (the first five of each are listed), or values are not finite.
    """
    wanted = model.state_dict()
    if partly:
        state = {name: state[name] for name in wanted if name in state}
    problems = {
        "missing": [name for name in wanted if name not in state],
        "unexpected": [name for name in state if name not in wanted],
        "other shape": [
            f"{name} {tuple(state[name].shape)} for {tuple(value.shape)}"
            for name, value in wanted.items()
            if name in state and state[name].shape != value.shape
        ],
    }
    said = [f"{len(names)} {kind}: {_listed(names)}" for kind, names in problems.items() if names]
    if said:
        raise InputError(f"{where}: these are weights of another network; " + "; ".join(said))
    check_finite(state, where=where)
    model.load_state_dict(state, strict=True)


def check_finite(state: Mapping[str, torch.Tensor], *, where: str) -> None:
    """Passes if no weight is NaN or infinite.

    Raises:
        InputError: some are; the first five are named.
    """
    broken = [name for name, value in state.items() if value.is_floating_point() and not torch.isfinite(value).all()]
    if broken:
        raise InputError(f"{where}: NaN or infinite weights in {_listed(broken)}")


def _listed(names: list[str]) -> str:
    rest = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + rest


def _torch_load(path: Path) -> object:
    """What `torch.load` gives, its many ways to fail told as one."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # pickle, zip, struct, attribute errors: any of them on bytes that are no checkpoint
        first_line = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"{path}: not a checkpoint that can be read safely ({first_line[:160]})") from error


def _kind(loaded: object) -> str:
    if isinstance(loaded, dict):
        return f"a dict with keys {', '.join(map(repr, list(loaded)[:_SHOWN]))}"
    return type(loaded).__name__
