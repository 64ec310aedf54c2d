"""Options of `train-siseg`: SISeg's own, and where the labels come from; imports no torch."""

from typing import Literal

from pydantic import field_validator
from pydantic_core import PydanticCustomError

from pseudolabel.config import Values, option
from pseudolabel.siseg.config import SisegRecipe

_FILES = Values("labels:DIR", lambda source: source.startswith("labels:"))


class TrainSisegConfig(SisegRecipe):
    """Options of `train-siseg`. Lengths are pixels of the resized image; a cell has four of them."""

    label_source: str = option(
        "semantic",
        "semantic (the run's own label maps), labels:DIR of PNGs, or truth",
        group="main",
    )
    label_format: Literal["voc", "ade20k", "cityscapes-labelids", "cityscapes-trainids", "raw"] | None = option(
        None, "what the values in labels:DIR mean", needs={"label_source": _FILES}
    )

    @field_validator("label_source")
    @classmethod
    def _a_known_source(cls, value: str) -> str:
        if value not in ("semantic", "truth") and not value.startswith("labels:"):
            raise PydanticCustomError("label_source", "expected semantic, labels:DIR or truth")
        return value

    def tables(self) -> tuple[str, ...]:
        return ("manifest", "semantic") if self.label_source == "semantic" else ("manifest",)
