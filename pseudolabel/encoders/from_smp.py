"""The encoder of a trained segmenter of segmentation-models-pytorch, which `smp:DIR` names."""

from pathlib import Path

from pseudolabel.encoders.encoder import Encoder
from pseudolabel.errors import ConfigError, InputError
from pseudolabel.segmenters.base import SegmenterOptions
from pseudolabel.segmenters.card import find_card
from pseudolabel.segmenters.smp import CONFIG_NAME, read_config, resolve_folder, weights_file
from pseudolabel.weights import load_weights, read_state_dict

PREFIX = "smp:"
_STAGES = 5
_OWN_NAMES = "encoder."  # under which the architectures keep their encoder's weights


def encoder_name(spec: str) -> str:
    """What segmentation-models-pytorch calls the encoder behind `smp:DIR`.

    Raises:
        InputError: files are missing or damaged.
        ConfigError: the encoder has not five stages, or takes something else than three channels.
    """
    config = read_config(_folder(spec) / CONFIG_NAME)
    if "encoder_name" not in config:
        raise InputError(f"{_folder(spec) / CONFIG_NAME}: names no encoder")
    if config.get("encoder_depth", _STAGES) != _STAGES or config.get("in_channels", 3) != 3:
        raise ConfigError(f"--backbone {spec}: expected an encoder of {_STAGES} stages that takes three channels")
    return str(config["encoder_name"])


def encoder_files(spec: str) -> dict[str, Path]:
    """The files behind `smp:DIR` that decide what the encoder is: weights and, where it has one, card.

    Raises:
        InputError: there are no weights.
    """
    weights = weights_file(_folder(spec))
    card = weights.with_suffix(".yaml")
    return {"backbone": weights} | ({"card": card} if card.is_file() else {})


def load_smp_encoder(encoder: Encoder, spec: str) -> None:
    """Fill an encoder of the same name from the segmenter, and let it see colours as the card beside it says.

    Raises:
        InputError: files are missing or damaged, or hold another encoder's weights.
        ConfigError: the segmenter has no card, or reads BGR.
    """
    weights = weights_file(_folder(spec))
    card = find_card(weights, SegmenterOptions()).input
    if card.color != "rgb":
        raise ConfigError(f"{spec}: expected an encoder that takes RGB, its card says {card.color}")
    state = read_state_dict(weights)
    own = {name.removeprefix(_OWN_NAMES): value for name, value in state.items() if name.startswith(_OWN_NAMES)}
    load_weights(encoder.body, own, where=f"{weights}, encoder")
    encoder.normalise_by(card.mean, card.std)


def _folder(spec: str) -> Path:
    return resolve_folder(spec.removeprefix(PREFIX))
