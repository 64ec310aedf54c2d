"""Cards beside ONNX files: how a model's input is prepared and its output read, where the file itself cannot say it."""

from pathlib import Path
from typing import Literal

import yaml

from pseudolabel.config import Config, ConfigT, parse_config
from pseudolabel.errors import ConfigError, InputError
from pseudolabel.registry import no_such_model
from pseudolabel.segmenters.card import InputCard, Triple


class CropOutput(Config):
    """Which output is the mask (the first one if not named), and on which scale."""

    name: str | None = None
    kind: Literal["probability", "logits"]


class CropCard(Config):
    """A class-agnostic model of one object in the middle: salience, matting, removal of backgrounds."""

    name: str
    license: str | None = None
    input: InputCard
    output: CropOutput


class PairInput(Config):
    """How pixels enter an encoder, in values of [0, 1]; `size` where the encoder's input has free sides."""

    mean: Triple | None = None
    std: Triple | None = None
    size: int | None = None


class PairCard(Config):
    """An encoder and a decoder of the SAM family; whatever it leaves out is the signature's default."""

    name: str | None = None
    license: str | None = None
    input: PairInput = PairInput()
    scores: Literal["model", "stability"] | None = None


def read_card(path: Path, card_class: type[ConfigT]) -> ConfigT:
    """A card from its YAML file.

    Raises:
        InputError: it is not there or not YAML.
        ConfigError: every problem at once; an unknown key names the nearest known one.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: no model card ({error.strerror})") from None
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"{path}: not a model card ({' '.join(str(error).split())[:200]})") from None
    if not isinstance(values, dict):
        raise InputError(f"{path}: expected keys and values, got {type(values).__name__}")
    return parse_config(card_class, values, where=str(path))


def crop_card_path(model: Path, card: Path | None) -> Path:
    """Where the card of a crop model is.

    Raises:
        InputError: no such model.
        ConfigError: there is no card; the message shows one.
    """
    if not model.is_file():
        raise InputError(f"crop:{no_such_model(model)}")
    path = card or model.with_suffix(".yaml")
    if not path.is_file():
        raise ConfigError(
            f"no model card {path}; write one, as\n"
            "name: isnet\ninput: {mean: [0.5, 0.5, 0.5], std: [1, 1, 1], size: [1024, 1024]}\n"
            "output: {kind: probability}"
        )
    return path
