"""What every source of label maps has in common, and the table of their names."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Protocol, TypeAlias

import numpy as np
from jaxtyping import UInt8
from pydantic import Field

from pseudolabel.errors import ConfigError, RejectError
from pseudolabel.masks import SoftMask
from pseudolabel.registry import Registry, did_you_mean

IGNORE_INDEX = 255  # in every label map that leaves a segmenter

SEGMENTERS = Registry(
    "segmenter",
    {
        "onnx": "pseudolabel.segmenters.onnx:open_onnx",
        "smp": "pseudolabel.segmenters.smp:open_smp",
        "torchvision": "pseudolabel.segmenters.torchvision:open_torchvision",
        "labels": "pseudolabel.segmenters.label_maps:open_label_maps",
    },
)


@dataclass(frozen=True, slots=True)
class Photo:
    """One image as a segmenter sees it.

    `rgb` is None for a segmenter whose `needs_pixels` is False.
    """

    file_name: str
    size_hw: tuple[int, int]
    rgb: UInt8[np.ndarray, "h w 3"] | None = None


@dataclass(frozen=True, slots=True)
class SemanticResult:
    """A class index per pixel (255 = ignore) and that class's probability, 255 being certain."""

    label_map: UInt8[np.ndarray, "h w"]
    confidence: UInt8[np.ndarray, "h w"]


Looks: TypeAlias = list[tuple[int, SoftMask | RejectError]]  # annotation ids and what was seen at their boxes


@dataclass(frozen=True, slots=True)
class Seen:
    """What a segmenter says of an image and, where it looked closer, of its boxes."""

    maps: SemanticResult | RejectError
    looks: Looks | None = None


class Segmenter(Protocol):
    """A source of label maps. `batch_size` images go through it at a time; short batches are padded."""

    classes: tuple[str, ...]
    ignore_index: int  # of the source itself; results have IGNORE_INDEX
    batch_size: int
    needs_pixels: bool

    def probe(self) -> None:
        """Run once on a made-up input.

        Raises:
            InputError: the model does not take or give what its card says, or gives non-finite values.
        """

    def predict(self, photos: Sequence[Photo]) -> list[SemanticResult | RejectError]:
        """One result per photo, at the photo's size; a `RejectError` stands where one photo alone failed."""


@dataclass(frozen=True, slots=True)
class SegmenterOptions:
    """What a segmenter is opened with, besides its spec; see the options of `infer-semantic`."""

    weights: Path | None = None
    card: Path | None = None
    classes: tuple[str, ...] = ()
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    size_hw: tuple[int, int] | None = None
    align_corners: bool | None = None
    long_side: int | None = None
    batch_size: int = 1
    threads: int = 1
    device: Annotated[str, Field(pattern=r"^(cpu|cuda(:\d+)?)$")] = "cpu"
    label_format: str | None = None
    label_offset: int | None = None
    label_suffix: str = ""
    ignore_index: int | None = None


def split_spec(spec: str) -> tuple[str, str]:
    """`kind` and `where` of `onnx:FILE`, `smp:DIR-or-hub-id`, `torchvision:NAME` or `labels:DIR`.

    A name that ends in `.onnx` needs no kind.

    Raises:
        ConfigError: no colon, an empty part, or an unknown kind; the message names the nearest.
    """
    kind, colon, where = spec.partition(":")
    if not colon and spec.endswith(".onnx"):
        return "onnx", spec
    if not colon or not where:
        forms = ", ".join(f"{name}:..." for name in SEGMENTERS)
        raise ConfigError(f"--model {spec!r}: expected FILE.onnx, or one of {forms}{_meant(spec)}")
    if kind not in SEGMENTERS:
        known = ", ".join(SEGMENTERS)
        raise ConfigError(f"--model: no segmenter called {kind!r}{did_you_mean(kind, SEGMENTERS)} (known: {known})")
    return kind, where


def _meant(spec: str) -> str:
    """What to type for a path without a kind, where that can be told."""
    path = Path(spec)
    if path.is_dir():
        kind = "smp" if (path / "config.json").is_file() else "labels"
        return f"; for this folder  --model {kind}:{spec}"
    if path.suffix in (".pt", ".pth", ".safetensors"):
        return f"; for a state dict  --model torchvision:NAME --weights {spec}"
    return ""


def open_segmenter(spec: str, options: SegmenterOptions) -> Segmenter:
    """The segmenter behind a spec, its weights loaded on `options.device`, not yet probed.

    Raises:
        ConfigError: a bad spec, or options that the kind needs are missing.
        InputError: a file is missing or is not what it should be.
        MachineError: the device cannot be had.
    """
    kind, where = split_spec(spec)
    segmenter: Segmenter = SEGMENTERS.load(kind)(where, options)
    return segmenter
