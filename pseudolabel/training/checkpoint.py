"""A trained model: one `.safetensors` with its config as YAML beside it, written whole or not at all."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from safetensors.torch import save
from torch import Tensor

from pseudolabel.errors import InputError
from pseudolabel.files import atomic_file, write_text_atomically
from pseudolabel.registry import no_such_file
from pseudolabel.training.processes import is_first_process
from pseudolabel.weights import check_finite


def config_path(weights: Path) -> Path:
    """Where a model's config stands: the same stem, `.yaml`."""
    return weights.with_suffix(".yaml")


def save_model(weights: Path, state: Mapping[str, Tensor], config: Mapping[str, Any]) -> str:
    """Write weights and config, and return the sha256 of the weights, which the config's `sha256` repeats.

    A process that dies between the two files leaves a config that does not fit, which `read_config` refuses. Of the
    processes of one training the first alone writes; the others get an empty string.

    Raises:
        InputError: a weight is NaN or infinite.
        MachineError: the disk is full or the folder cannot be written.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    check_finite(tensors, where=str(weights))
    if not is_first_process():
        return ""
    content = save(tensors)
    with atomic_file(weights) as file:
        file.write(content)
    digest = hashlib.sha256(content).hexdigest()
    write_text_atomically(config_path(weights), yaml.safe_dump({**config, "sha256": digest}, sort_keys=False))
    return digest


def read_config(weights: Path) -> dict[str, Any]:
    """The config of a trained model, checked to be that of exactly these weights.

    Raises:
        InputError: the config is missing or damaged, or the weights are not those that it was written with.
    """
    path = config_path(weights)
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{weights}: no config {path.name} beside it; a trained model is both files") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a YAML file ({str(error).splitlines()[0]})") from None
    if not isinstance(content, dict) or "sha256" not in content:
        raise InputError(f"{path}: not the config of a trained model")
    wanted = content.pop("sha256")
    found = sha256(weights)
    if wanted != found:
        raise InputError(
            f"{weights}: sha256 is {found[:12]}..., {path.name} says {str(wanted)[:12]}...; one is damaged"
        )
    return content


def sha256(path: Path) -> str:
    """Hexadecimal sha256 of a file's content."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        raise InputError(no_such_file(path)) from None
