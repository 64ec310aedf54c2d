"""The model card: how a segmenter's input is prepared and its output read.

A card is a YAML file of the same stem beside the weights (`deeplab.onnx`, `deeplab.yaml`). Without one the options
must say the same: `--classes`, `--mean`, `--std`, `--size`, `--align-corners`.
"""

import difflib
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, model_validator

from pseudolabel.config import Config
from pseudolabel.errors import ConfigError, InputError
from pseudolabel.known_models import card_path
from pseudolabel.segmenters.base import SegmenterOptions
from pseudolabel.yaml_file import read_yaml

Triple = tuple[float, float, float]


class SizeRule(Config):
    """Sides that the model takes besides its own: `multiple * k + plus` pixels."""

    multiple: int = Field(ge=1)
    plus: int = Field(default=0, ge=0)

    def nearest(self, side: float) -> int:
        """The allowed side nearest to `side`, at least one multiple."""
        return self.multiple * max(1, round((side - self.plus) / self.multiple)) + self.plus


class InputCard(Config):
    """How pixels enter: colour order, mean and std of values in [0, 1], height and width."""

    color: Literal["rgb", "bgr"] = "rgb"
    mean: Triple
    std: Triple
    size: tuple[int, int] | None = None
    size_rule: SizeRule | None = None

    @model_validator(mode="after")
    def _check(self) -> "InputCard":
        if self.size is None and self.size_rule is None:
            raise ValueError("one of size and size_rule is needed")
        if min(self.std) <= 0:
            raise ValueError("std must be positive")
        if self.size is not None and min(self.size) < 1:
            raise ValueError("size must be positive")
        return self


class OutputCard(Config):
    """How the output is read: logits on a grid whose corners (or cells) align with the image's.

    `kind` tells logits from a label map of class indices, which an ONNX file shows by its type anyway; `name` is the
    output that counts where an ONNX file has several.
    """

    kind: Literal["logits", "labels"] = "logits"
    name: str | None = None
    align_corners: bool


class ModelCard(Config):
    """A segmenter's card."""

    name: str
    task: Literal["semantic-segmentation"] = "semantic-segmentation"
    license: str | None = None
    input: InputCard
    output: OutputCard
    ignore_index: int = Field(default=255, ge=0, le=255)
    classes: tuple[str, ...] = Field(min_length=2, max_length=255)

    @model_validator(mode="after")
    def _check_classes(self) -> "ModelCard":
        twice = sorted({name for name in self.classes if self.classes.count(name) > 1})
        if twice:
            raise ValueError(f"classes named twice: {', '.join(twice)}")
        return self

    def network_size(self, image_hw: tuple[int, int], long_side: int | None) -> tuple[int, int]:
        """Height and width at which an image enters the network.

        `long_side` gives the longer side in pixels, the shape of the image is kept and both sides follow the size
        rule; None takes the card's size, or the image's own sides under the rule.

        Raises:
            ConfigError: `long_side` for a model whose card has no size rule.
        """
        if long_side is None and self.input.size is not None:
            return self.input.size
        rule = self.input.size_rule
        if rule is None:
            raise ConfigError(f"{self.name} takes {self.input.size} alone (no size_rule in its card): omit --long-side")
        scale = 1.0 if long_side is None else long_side / max(image_hw)
        return rule.nearest(image_hw[0] * scale), rule.nearest(image_hw[1] * scale)


def find_card(weights: Path, options: SegmenterOptions) -> ModelCard:
    """The card named in the options, or beside the weights, or that ships with the package, or made of the options.

    Raises:
        ConfigError: there is none and the options do not say all of it.
        InputError: the card cannot be read or says something impossible.
    """
    path = card_path(weights, options.card)
    return read_card(path) if path else card_from_options(weights.stem, options, weights=weights)


def read_card(path: Path) -> ModelCard:
    """A card from its file.

    Raises:
        InputError: every problem at once; an unknown key names the nearest known one.
    """
    if not path.exists():
        raise InputError(f"{path}: no such model card")
    values = read_yaml(path)
    if not isinstance(values, dict):
        raise InputError(f"{path}: expected keys and values, got {type(values).__name__}")
    return _checked(values, str(path))


def card_from_options(name: str, options: SegmenterOptions, *, weights: Path) -> ModelCard:
    """A card made of the options alone.

    Raises:
        ConfigError: some are missing; the message lists them, and how to write a card.
    """
    given = {
        "--classes": bool(options.classes),
        "--mean": bool(options.mean),
        "--std": bool(options.std),
        "--size": options.size_hw is not None,
        "--align-corners": options.align_corners is not None,
    }
    missing = [flag for flag, there in given.items() if not there]
    if missing:
        raise ConfigError(
            f"no model card {weights.with_suffix('.yaml')}; {_cure(weights)}, or give {', '.join(missing)}"
        )
    values = {
        "name": name,
        "input": {"mean": list(options.mean), "std": list(options.std), "size": list(options.size_hw or ())},
        "output": {"align_corners": options.align_corners},
        "ignore_index": 255 if options.ignore_index is None else options.ignore_index,
        "classes": list(options.classes),
    }
    return _checked(values, "options")


def _cure(weights: Path) -> str:
    named = "name one with --card FILE"
    if weights.suffix != ".onnx":
        return f"{named}, or one that ships (pseudolabel models lists them)"
    return f"write it from a template with  pseudolabel card {weights} --output {weights.with_suffix('.yaml')}, {named}"


def _checked(values: dict[str, Any], where: str) -> ModelCard:
    try:
        return ModelCard.model_validate(values)
    except ValidationError as error:
        problems = "; ".join(_problem(problem) for problem in error.errors())
        raise InputError(f"{where}: {problems}") from None


_SECTIONS: dict[str, type[Config]] = {"input": InputCard, "output": OutputCard, "size_rule": SizeRule}


def _problem(problem: Any) -> str:
    parts = [str(part) for part in problem["loc"]]
    key = ".".join(parts) or "card"
    if problem["type"] == "extra_forbidden":
        section = _SECTIONS.get(parts[-2], ModelCard) if len(parts) > 1 else ModelCard
        near = difflib.get_close_matches(parts[-1], section.model_fields, n=1, cutoff=0.0)
        return f"unknown key {key!r}; did you mean {near[0]!r}?"
    if problem["type"] == "missing":
        return f"{key} is required"
    return f"{key}: {problem['msg']}"
