"""Options of `infer-semantic`, and of the candidates that follow it where there are boxes."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from pseudolabel.config import Config, option
from pseudolabel.pipelines.options.base import TABLE_NAME, StageConfig

ZoomRoom = Annotated[float, Field(ge=0.25, le=8)]
_NAME = "the table below candidates/ that is written; name each of several segmenters"
_MASKS = "candidates refined by colours, the box's shape and its tightness, or the class's bare region"
_UNKNOWN = "objects that the segmenter does not know or see get a mask from box and colours alone, or none"
_MODEL = "which model: FILE.onnx, smp:DIR-or-hub-id, torchvision:NAME or labels:DIR"


class SegmenterConfig(Config):
    """What opens a segmenter."""

    model: str | None = option(None, _MODEL, group="main")
    card: Path | None = option(
        None,
        "model card, or the name of one that ships; default: the YAML beside the weights, or that of a known model",
        group="main",
    )
    classes: list[str] | None = option(None, "class names in order, where no card says them")
    mean: str | None = option(None, "mean of values in [0, 1], as 0.485,0.456,0.406, where no card says it")
    std: str | None = option(None, "standard deviation likewise")
    size: str | None = option(None, "HEIGHTxWIDTH of the model's input, where no card says it")
    align_corners: bool | None = option(None, "how the output grid maps to the image, where no card says it")
    weights: Path | None = option(None, "trained weights: state dict of a torchvision model (.safetensors or .pt)")
    label_format: Literal["voc", "ade20k", "cityscapes-labelids", "cityscapes-trainids", "raw"] | None = option(
        None, "what the values in labels:DIR mean"
    )
    label_offset: int | None = option(None, "added to a raw value to give a class index")
    label_suffix: str = option("", "what ends a label map's name behind the image's, such as _gtFine_labelIds")
    ignore_index: int | None = option(None, "value in label maps that means no class", ge=0, le=65535)

    @field_validator("model")
    @classmethod
    def _with_kind(cls, model: str | None) -> str | None:
        """An ONNX file needs no prefix."""
        return f"onnx:{model}" if model and model.endswith(".onnx") and ":" not in model else model

    @model_validator(mode="after")
    def _with_weights(self) -> Self:
        if (self.model or "").startswith("torchvision:") and self.weights is None:
            raise ValueError(
                f"{self.model} needs --weights FILE, a state dict (.safetensors or .pt); known ones are listed by  "
                "pseudolabel models"
            )
        return self


class SemanticCandidatesConfig(StageConfig):
    """Options of the candidates that come from label maps; `infer-semantic` has them, too, and hands them on."""

    name: str = option("semantic", _NAME, changes_result=False, pattern=TABLE_NAME)
    masks: Literal["refined", "region"] = option("refined", _MASKS)
    unknown_classes: Literal["colors", "none"] = option("colors", _UNKNOWN)

    @property
    def colors_unknown(self) -> bool:
        """Whether an object of an unknown class gets a mask from box and colours; bare regions have no colours."""
        return self.unknown_classes == "colors" and self.masks == "refined"


class InferSemanticConfig(SegmenterConfig, StageConfig):
    """Options of `infer-semantic`."""

    model: str = option(..., _MODEL, group="main")
    name: str = option("semantic", _NAME, changes_result=False, group="main", pattern=TABLE_NAME)
    masks: Literal["refined", "region"] = option("refined", _MASKS, changes_result=False, group="main")
    unknown_classes: Literal["colors", "none"] | None = option(
        None,
        f"{_UNKNOWN}; default: colors, and none for a further segmenter, beside which the first one has said that",
        changes_result=False,
        group="main",
        validate_default=True,
    )
    zoom: bool = option(
        True,
        "networks: look closer at every given box of a class that they know, one more forward pass for each zoom-room",
        group="main",
    )
    zoom_room: list[ZoomRoom] = option(
        [0.5, 1.0],
        "what a closer look shows around the box, in longer sides of it; may be repeated: a look and a candidate each",
        needs={"zoom": ()},
        min_length=1,
    )
    long_side: int | None = option(
        None, "longer side in px at which images enter, shape kept; default: the card's size", ge=16, le=8192
    )
    batch_size: int = option(1, "images per forward pass; raise it on a GPU", group="main", ge=1, le=1024)
    threads: int = option(1, "CPU threads: of one worker's forward pass", changes_result=False, group="machine", ge=1)

    def extras(self) -> tuple[str, ...]:
        return ("train",) if self.model.startswith("smp:") else ()

    @field_validator("unknown_classes")
    @classmethod
    def _once(cls, value: str | None, info: ValidationInfo) -> str:
        return value or ("colors" if info.data.get("name") == "semantic" else "none")
