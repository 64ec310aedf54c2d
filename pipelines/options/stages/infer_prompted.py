"""Options of `infer-prompted`."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from pseudolabel.config import option
from pseudolabel.pipelines.options.base import TABLE_NAME, StageConfig

Room = Annotated[float, Field(ge=0, le=2)]
CROP_GATE = 0.6
# options that one kind of model alone has
_NEED_CROP = ("crop_room",)
_NEED_BOXES = ("box_views", "mask_levels", "closer_px", "boxes_at_once")


class InferPromptedConfig(StageConfig):
    """A model that is asked for a mask of each box."""

    model: str = option(
        ...,
        "which model: sam:DIR (a folder of transformers), sam-onnx:DIR (an encoder and a decoder) or crop:FILE (a "
        "model of salience or matting, on the box's crop)",
        group="main",
    )
    name: str = option("prompted", "the table below candidates/ that is written", pattern=TABLE_NAME, group="main")
    boxes_from: str | None = option(
        None, "of a run without boxes: the candidates whose boxes are asked about, as siseg or teacher",
        pattern=TABLE_NAME,
    )  # fmt: skip
    card: Path | None = option(None, "model card, of an ONNX model; default: the YAML beside it")
    box_views: int = option(
        5, "sam: masks per box, of the box and of boxes whose sides are moved by 3 %; what they disagree on tells the "
        "score how sure the mask is", ge=1, le=9,
    )  # fmt: skip
    mask_levels: Literal["single", "all"] = option(
        "single", "sam: one mask per view, or also those of parts and of the whole, for  fuse --fusion best"
    )
    closer_px: int = option(
        64, "sam: boxes whose longer side is below this are asked about on an enlarged part of the image, which costs "
        "an embedding for each; 0 = never", ge=0, le=1024,
    )  # fmt: skip
    boxes_at_once: int = option(8, "sam: boxes in a forward pass of the decoder", ge=1, le=1024)
    crop_room: list[Room] = option(
        [0.1, 0.25],
        "crop: what is shown around the box, in longer sides of it; may be repeated: a crop and a candidate each",
        min_length=1,
    )
    least_score: float | None = option(
        None, f"lower scores are left out: of candidates; default: {CROP_GATE} for crop, else 0", ge=0, le=1
    )
    precision: Literal["fp32", "bf16"] = option(
        "fp32", "arithmetic of the forward pass: for sam; bf16 is made for GPUs"
    )
    threads: int = option(1, "CPU threads: of one worker's forward pass", changes_result=False, ge=1, group="machine")

    @model_validator(mode="after")
    def _every_option_suits_the_model(self) -> "InferPromptedConfig":
        kind = self.model.partition(":")[0]
        foreign = _NEED_BOXES if kind == "crop" else _NEED_CROP if kind in ("sam", "sam-onnx") else ()
        alone = {"precision": "sam"} | dict.fromkeys(foreign, "sam" if kind == "crop" else "crop")
        for name, needed in alone.items():
            default = type(self).model_fields[name].get_default(call_default_factory=True)
            if getattr(self, name) != default and kind != needed:
                raise PydanticCustomError("no_effect", f"{name} does nothing for a {kind}: model")
        return self

    def extras(self) -> tuple[str, ...]:
        return ("sam",) if self.model.startswith("sam:") else ()

    @property
    def gate(self) -> float:
        """The least score that is kept."""
        default = CROP_GATE if self.model.startswith("crop:") else 0.0
        return default if self.least_score is None else self.least_score
