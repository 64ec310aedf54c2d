"""Options of a training, declared once for the loop, the methods and the command line; imports no torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from pydantic import model_validator
from pydantic_core import PydanticCustomError

from pseudolabel.config import Config, option
from pseudolabel.encoders.config import PretrainedConfig

_SCALED = ("weak", "strong", "strong_blur")


@dataclass(frozen=True, slots=True)
class Work:
    """What a training does, for a forecast: all of it, but `step_megapixels` and `kept`, which memory hangs on."""

    megapixels: float  # through the network, forward and back
    step_megapixels: float  # of one process
    objects: float = 0.0  # on the pictures of all steps
    encoded: float = 0.0  # pictures through the encoder alone
    kept: float = 0.0  # pictures whose features stay in memory
    scratch_bytes: int = 0  # on disk until it ends


class LoopConfig(Config):
    """How long and on what a method is trained."""

    steps: int = option(..., "optimiser steps", ge=1)
    batch_size: int = option(32, "samples per step and process", group="main", ge=1)
    seed: int = option(0, "random seed: of weights, order and augmentation", ge=0)
    warmup: float = option(0.1, "share of the steps over which the learning rate rises", ge=0, lt=1)
    schedule: Literal["cosine", "step"] = option(
        "cosine", "how the learning rate falls: half a cosine, or in two steps"
    )
    weight_decay: float = option(0.01, "of AdamW", ge=0)
    clip_norm: float = option(5.0, "largest gradient norm", gt=0)
    device: str = option(
        "cpu", "cpu, cuda or cuda:N", changes_result=False, group="machine", pattern=r"^(cpu|cuda(:\d+)?)$"
    )
    devices: int = option(1, "processes, one per GPU; torchrun and Slurm are recognised", group="machine", ge=1)
    nodes: int = option(1, "machines", group="machine", ge=1)
    checkpoint_every: int = option(
        200, "steps between two checkpoints to go on from", changes_result=False, group="machine", ge=1
    )
    log_every: int = option(20, "steps between two lines of the log", changes_result=False, group="machine", ge=1)


class FitConfig(LoopConfig):
    """What `fit` takes."""

    precision: Literal["fp32", "bf16"] = option("fp32", "arithmetic of the forward pass", group="main")
    loader_workers: int = option(0, "processes that read samples", changes_result=False, group="machine", ge=0)


class TrainConfig(LoopConfig, PretrainedConfig):
    """Options of every training command: there is an encoder in each of them."""

    learning_rate: float = option(1e-3, "of the new layers", group="main", gt=0)
    device: str = option(
        "auto",
        "auto, cpu, cuda or cuda:N",
        changes_result=False,
        group="machine",
        pattern=r"^(auto|cpu|cuda(:\d+)?)$",
    )
    threads: int = option(0, "CPU threads; 0 = torch's choice", changes_result=False, group="machine", ge=0)

    def tables(self) -> tuple[str, ...]:
        """Tables of the run that decide the result."""
        return ("manifest",)

    def steps_for(self, samples: int) -> int:
        """Optimiser steps of a training on so many samples."""
        del samples
        return self.steps

    @property
    def network(self) -> tuple[str | int, ...]:
        """What decides the cost of a pixel: kind, encoder and widths."""
        return (self.backbone,)

    def work(self, images: int, objects: int) -> Work:
        """What a training on so many images and objects does."""
        return self._work(images, getattr(self, "image_px", 0), objects / max(images, 1))

    def _work(self, samples: int, side_px: float, objects_each: float = 0.0) -> Work:
        seen = self.steps_for(samples) * self.batch_size * self.devices * self.nodes
        megapixels = side_px**2 / 1e6
        return Work(seen * megapixels, self.batch_size * megapixels, seen * objects_each)


class FinetuneConfig(TrainConfig, FitConfig):
    """Options of a training that goes by epochs, of an encoder with new layers above it."""

    steps: int = option(0, "optimiser steps; 0: as `epochs` says", ge=0)
    epochs: float = option(24.0, "how often every image is seen", group="main", needs={"steps": (0,)}, gt=0)
    encoder_learning_rate: float = option(1e-4, "of the encoder", ge=0)

    def steps_for(self, samples: int) -> int:
        per_step = self.batch_size * self.devices * self.nodes
        return self.steps or max(1, round(self.epochs * samples / per_step))


class PresetConfig(Config):
    """Options whose defaults go together: what is said beside a preset wins over it."""

    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]]

    preset: Literal["base", "small"] = option(
        "base",
        "sizes to begin with, over which single options win: small is for a CPU",
        changes_result=False,  # by what it fills in alone
        group="main",
    )

    @model_validator(mode="before")
    @classmethod
    def _filled_in(cls, values: Any) -> Any:
        """A preset's epochs, and what is said of their steps, give way to steps."""
        if not isinstance(values, dict):
            return values
        chosen = dict(cls.PRESETS.get(values.get("preset", "base"), {}))
        if values.get("steps"):
            chosen = {name: value for name, value in chosen.items() if name not in ("epochs", "least_steps")}
        return {**chosen, **values}


class ScaleConfig(Config):
    """At which random sizes images are seen; a student's plain views are of one size."""

    smallest_scale: float = option(0.5, "least random scale of a view", needs={"views": _SCALED}, gt=0)
    largest_scale: float = option(1.5, "largest random scale of a view", needs={"views": _SCALED}, gt=0)

    @model_validator(mode="after")
    def _scales_in_order(self) -> "ScaleConfig":
        if self.smallest_scale > self.largest_scale:
            raise PydanticCustomError("scales", "smallest_scale must not exceed largest_scale")
        return self
