"""Models of segmentation-models-pytorch, from a `save_pretrained` folder or from the hub's local cache."""

import json
from pathlib import Path
from typing import Any

import segmentation_models_pytorch as smp
import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

from pseudolabel.errors import InputError
from pseudolabel.segmenters.base import SegmenterOptions
from pseudolabel.segmenters.card import find_card
from pseudolabel.segmenters.network import NetworkSegmenter
from pseudolabel.segmenters.torch_network import TorchNetwork
from pseudolabel.weights import load_weights, read_state_dict
from pseudolabel.yaml_file import read_small_text

CONFIG_NAME = "config.json"
_WEIGHTS_SUFFIXES = (".ckpt", ".pt", ".pth", ".bin", ".safetensors", ".onnx")
WEIGHTS_NAMES = ("model.safetensors", "pytorch_model.bin")


def open_smp(where: str, options: SegmenterOptions) -> NetworkSegmenter:
    """The segmenter of a folder or hub id; its card is `model.yaml` beside `model.safetensors`."""
    folder = resolve_folder(where)
    weights = weights_file(folder)
    card = find_card(weights, options)
    model = build_model(folder / CONFIG_NAME)
    load_weights(model, read_state_dict(weights), where=str(weights))
    network = TorchNetwork(model, device=options.device)
    return NetworkSegmenter(network, card, batch_size=options.batch_size, long_side=options.long_side)


def resolve_folder(where: str) -> Path:
    """A local folder as it is, or what the hub's cache holds of a hub id; nothing is fetched.

    Raises:
        InputError: neither a folder nor in the cache, or a file, which is never looked for on a hub.
    """
    if Path(where).is_dir():
        return Path(where)
    if Path(where).exists() or Path(where).suffix in _WEIGHTS_SUFFIXES:
        raise InputError(
            f"smp:{where}: expected a folder as model.save_pretrained(DIR) writes it (config.json with the weights), "
            f"got {'a file' if Path(where).exists() else 'the name of a file that is not there'}; load the checkpoint "
            "in Python, call save_pretrained, and give that folder"
        )
    try:
        allowed = [CONFIG_NAME, *WEIGHTS_NAMES, "*.yaml"]
        return Path(snapshot_download(where, allow_patterns=allowed, local_files_only=True))
    except HFValidationError:
        raise InputError(f"smp:{where}: no such folder") from None
    except LocalEntryNotFoundError:
        raise InputError(
            f"smp:{where} is no folder here and not in the hub's cache, and nothing is fetched unasked: "
            f"fetch it first with  hf download {where}"
        ) from None


def weights_file(folder: Path) -> Path:
    """The weights in a `save_pretrained` folder, safetensors first.

    Raises:
        InputError: there are none.
    """
    for name in WEIGHTS_NAMES:
        if (folder / name).is_file():
            return folder / name
    raise InputError(f"{folder}: expected one of {', '.join(WEIGHTS_NAMES)}, as model.save_pretrained writes them")


def build_model(path: Path) -> torch.nn.Module:
    """The architecture that a `config.json` names, with random weights and never a download of an encoder's.

    Raises:
        InputError: no such file, no known architecture, or arguments that it does not take.
    """
    config = read_config(path)
    name = config.pop("_model_class", None)
    by_class_name = {model.__name__: model for model in smp.MODEL_ARCHITECTURES_MAPPING.values()}
    if name not in by_class_name:
        raise InputError(f"{path}: no architecture called {name!r} (known: {', '.join(sorted(by_class_name))})")
    try:
        model: torch.nn.Module = by_class_name[name](**(config | {"encoder_weights": None}))
    except (TypeError, ValueError, KeyError) as error:
        raise InputError(f"{path}: {name} cannot be made of it ({error})") from None
    return model


def read_config(path: Path) -> dict[str, Any]:
    """The content of a `config.json`.

    Raises:
        InputError: no such file, or something else in it.
    """
    try:
        config = json.loads(read_small_text(path))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: no config of a model ({error})") from None
    if not isinstance(config, dict):
        raise InputError(f"{path}: expected an object, got {type(config).__name__}")
    return config
