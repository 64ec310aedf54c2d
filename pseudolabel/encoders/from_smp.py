"""The encoder of a trained segmenter of segmentation-models-pytorch, as a backbone with weights of its own."""

import json
from dataclasses import dataclass
from pathlib import Path

from jaxtyping import Shaped
from torch import Tensor

from pseudolabel.errors import ConfigError, InputError
from pseudolabel.segmenters.base import SegmenterOptions
from pseudolabel.segmenters.card import find_card
from pseudolabel.segmenters.smp import CONFIG_NAME, resolve_folder, weights_file
from pseudolabel.weights import read_state_dict

PREFIX = "smp:"
_STAGES = 5
_OWN_NAMES = "encoder."  # under which the architectures keep their encoder's weights

Normalisation = tuple[tuple[float, float, float], tuple[float, float, float]]


@dataclass(frozen=True, slots=True)
class SegmenterEncoder:
    """Name and weights of an encoder, and mean and std of inputs in [0, 1] that it was trained with."""

    name: str
    normalisation: Normalisation
    state: dict[str, Shaped[Tensor, "..."]]


def encoder_file(backbone: str) -> Path:
    """The weights file behind `smp:DIR-or-hub-id`."""
    return weights_file(resolve_folder(backbone.removeprefix(PREFIX)))


def read_encoder(backbone: str) -> SegmenterEncoder:
    """The encoder of `smp:DIR-or-hub-id`, with the card beside its weights.

    Raises:
        InputError: files are missing or damaged.
        ConfigError: the segmenter has no card, reads BGR, or its encoder has not five stages.
    """
    weights = encoder_file(backbone)
    config = _read_config(weights.parent / CONFIG_NAME)
    if config.get("encoder_depth", _STAGES) != _STAGES or config.get("in_channels", 3) != 3:
        raise ConfigError(f"--backbone {backbone}: expected an encoder of {_STAGES} stages that takes three channels")
    entry = find_card(weights, SegmenterOptions()).input
    if entry.color != "rgb":
        raise ConfigError(f"--backbone {backbone}: expected an encoder that takes RGB, its card says {entry.color}")
    state = read_state_dict(weights)
    own = {name.removeprefix(_OWN_NAMES): value for name, value in state.items() if name.startswith(_OWN_NAMES)}
    return SegmenterEncoder(str(config["encoder_name"]), (entry.mean, entry.std), own)


def _read_config(path: Path) -> dict[str, object]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(f"{path}: no config of a model ({error})") from None
    if not isinstance(config, dict) or "encoder_name" not in config:
        raise InputError(f"{path}: names no encoder")
    return config
