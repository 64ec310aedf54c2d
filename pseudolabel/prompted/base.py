"""What a model that gives a mask for a box is asked and what it answers, and the table of their kinds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from jaxtyping import Float, UInt8

from pseudolabel.errors import ConfigError
from pseudolabel.masks import SoftMask
from pseudolabel.registry import Registry, did_you_mean

BoxXyxy = tuple[float, float, float, float]

# kind -> function (where, options) -> Prompted
PROMPTED = Registry(
    "promptable model",
    {
        "sam": "pseudolabel.prompted.sam:open_sam",
        "sam-onnx": "pseudolabel.prompted.sam_onnx:open_sam_onnx",
        "crop": "pseudolabel.prompted.crop:open_crop",
    },
)
# kind -> function (where, card) -> the files that decide its answers, by name
FILES = Registry(
    "promptable model",
    {
        "sam": "pseudolabel.prompted.sam_files:sam_files",
        "sam-onnx": "pseudolabel.prompted.onnx_pair:pair_files",
        "crop": "pseudolabel.prompted.crop_files:crop_files",
    },
)


@dataclass(frozen=True, slots=True)
class Prompts:
    """One image and the boxes that masks are wanted for, each with an area."""

    pixels: UInt8[np.ndarray, "h w 3"]
    boxes_xyxy: Float[np.ndarray, "n 4"]


@dataclass(frozen=True, slots=True)
class PromptedMask:
    """One mask for one of the boxes.

    `reach_xyxy` is the tight box of the mask before it was cut to the given box, `box_iou` the IoU of the two.
    """

    given: int
    box_score: float  # in [0, 1]
    box_iou: float
    reach_xyxy: BoxXyxy
    mask: SoftMask


@dataclass(frozen=True, slots=True)
class PromptedOptions:
    """What a model is opened with; see the options of `infer-prompted`."""

    card: Path | None = None
    views: int = 5
    masks: Literal["single", "all"] = "single"
    rooms: tuple[float, ...] = (0.1, 0.25)
    closer_px: int = 64
    boxes_at_once: int = 8
    least_score: float = 0.0
    bf16: bool = False
    threads: int = 1
    device: str = "cpu"


class Prompted(Protocol):
    """A model that is ready to be asked. No box influences what another one gets."""

    def probe(self) -> None:
        """Ask once about a made-up image.

        Raises:
            InputError: the model does not take or give what it should, or does not hear boxes.
        """

    def predict(self, prompts: Prompts) -> list[PromptedMask]:
        """The masks of the boxes, in their order; none for a box where the model sees nothing.

        Raises:
            RejectError: the answer is not finite.
            MachineError: the device has too little memory.
        """


def split_spec(spec: str) -> tuple[str, str]:
    """`kind` and `where` of `sam:DIR`, `sam-onnx:DIR` or `crop:FILE`.

    Raises:
        ConfigError: no colon, an empty part, or an unknown kind; the message names the nearest.
    """
    kind, colon, where = spec.partition(":")
    if not colon or not where:
        raise ConfigError(f"--model {spec!r}: expected sam:DIR, sam-onnx:DIR or crop:FILE")
    if kind not in PROMPTED:
        known = ", ".join(PROMPTED)
        raise ConfigError(
            f"--model: no promptable model called {kind!r}{did_you_mean(kind, PROMPTED)} (known: {known})"
        )
    return kind, where


def open_prompted(spec: str, options: PromptedOptions) -> Prompted:
    """The model behind a spec, its weights loaded on `options.device`, not yet probed.

    Raises:
        ConfigError: a bad spec, or something that the kind needs is not said.
        InputError: a file is missing or is not what it should be.
        MachineError: the device cannot be had.
    """
    kind, where = split_spec(spec)
    model: Prompted = PROMPTED.load(kind)(where, options)
    return model


def deciding_files(spec: str, card: Path | None) -> Mapping[str, Path]:
    """Every file whose content decides what the model answers, by name. Loads no weights.

    Raises:
        ConfigError, InputError: as `open_prompted`.
    """
    kind, where = split_spec(spec)
    files: Mapping[str, Path] = FILES.load(kind)(where, card)
    return files


def made_up_prompts() -> Prompts:
    """An image of 96 x 128 px with two rectangles, and a box around each: for `probe`."""
    pixels = np.full((96, 128, 3), 60, dtype=np.uint8)
    pixels[20:70, 10:50] = (220, 40, 40)
    pixels[30:90, 70:120] = (40, 40, 220)
    return Prompts(pixels, np.array([(10.0, 20.0, 50.0, 70.0), (70.0, 30.0, 120.0, 90.0)]))


def one_line(error: BaseException) -> str:
    """What a library's exception says, for a message of ours."""
    return " ".join(str(error).split())[:200] or type(error).__name__


def shape_text(shapes: Sequence[Any]) -> str:
    """Shapes for a message: `(1, 3, 8, 8), (1, 3)`."""
    return ", ".join(str(tuple(shape)) for shape in shapes)
