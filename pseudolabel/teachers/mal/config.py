"""Options of the box-conditioned teacher: network, losses, training and its rounds; imports no torch."""

from typing import ClassVar

from pydantic import model_validator
from pydantic_core import PydanticCustomError

from pseudolabel.config import Values, option
from pseudolabel.teachers.config import MethodConfig, method_option
from pseudolabel.training.config import FinetuneConfig, PresetConfig, Work

_CROP_STEP_PX = 32
_LEAST_CANVAS_PX = 64
_SEVERAL = Values("of 2 or more", lambda rounds: rounds > 1)
_SOME = Values("of more than 0", lambda drawn: drawn > 0)


class MalConfig(PresetConfig, FinetuneConfig, MethodConfig):
    """How the box-conditioned teacher is built and trained."""

    PRESETS: ClassVar = {"small": {"epochs": 3.0, "least_steps": 200, "crop_px": 96}}

    method: str = method_option("mal")
    epochs: float = option(8.0, "how often every object is seen", group="main", needs={"steps": (0,)}, gt=0)
    least_steps: int = option(400, "optimiser steps at least, where objects are few", needs={"steps": (0,)}, ge=1)
    rounds: int = option(
        1, "trainings; each but the first learns also from the masks of the one before", group="main", ge=1
    )
    guides: list[str] = option(
        [], "candidate tables, such as semantic, that are fused with the masks between two rounds", group="main"
    )
    guided_from: int = option(
        2, "round in which the guides speak first; in round 1 they speak alone", needs={"guides": ()}, ge=1
    )
    batch_size: int = option(8, "objects per step and process", group="main", ge=1)
    learning_rate: float = option(2e-3, "of the new layers", group="main", gt=0)
    encoder_learning_rate: float = option(4e-4, "of the encoder", ge=0)
    max_objects: int = option(100_000, "train on this many objects at most, of whole images drawn by the seed", ge=1)
    width: int = option(64, "channels of the pyramid and of the heads", ge=8, multiple_of=8)
    crop_px: int = option(
        128, "side of the crops; a mask has a quarter of it", ge=_CROP_STEP_PX, multiple_of=_CROP_STEP_PX
    )
    last_crop_px: int = option(
        192,
        "side of the crops in the last of several rounds, to which they grow from round to round",
        needs={"rounds": _SEVERAL},
        ge=_CROP_STEP_PX,
        multiple_of=_CROP_STEP_PX,
    )
    room: float = option(0.2, "context on every side of the box, in box sides", ge=0.05, le=0.45)
    jitter: float = option(0.05, "how far crops move, in box sides", ge=0, le=0.2)
    room_jitter: float = option(0.1, "how much the context varies", ge=0, le=0.2)
    color_jitter: float = option(0.4, "how much brightness, contrast and saturation vary", ge=0, lt=1)
    freeze: bool = option(True, "keep the encoder's layers up to stride 4 as they are")
    least_similarity: float = option(0.1, "least colour similarity of neighbours that should agree", ge=0, le=1)
    theta: float = option(2.0, "scale of colour distances", group="paper", gt=0)
    dilation: int = option(2, "distance of the neighbours, in cells of 4 px", group="paper", ge=1)
    pairwise_weight: float = option(1.0, "of the colour loss", ge=0)
    pairwise_warmup: float = option(
        0.15,
        "share of the training over which the colour loss rises, and the ellipse, if any, fades",
        ge=0,
        lt=1,
    )
    outside_weight: float = option(1.0, "of the background loss outside the box", ge=0)
    teacher_from: float = option(0.4, "share of the training before the moving average teaches", ge=0, le=1)
    teacher_warmup: float = option(
        0.1, "share of the training over which the losses with the average's masks rise", gt=0, le=1
    )
    pixel_weight: float = option(0.5, "of the dice with the moving average's masks, by their quality", ge=0)
    affinity_weight: float = option(0.1, "of the affinity loss with the moving average's masks", ge=0)
    field_weight: float = option(
        1.0, "of like-coloured neighbours in the mean field over the moving average's masks", ge=0
    )
    ema: float = option(0.995, "momentum of the moving average: the largest", ge=0, lt=1)
    drawn: float = option(1.0, "drawn objects with known masks per box; 0: none, and an ellipse as a start", ge=0, le=4)
    drawn_weight: float = option(2.0, "of the loss with the masks of drawn objects", needs={"drawn": _SOME}, ge=0)
    label_weight: float = option(2.0, "of the loss with the masks of the round before", ge=0)
    labelled_pairwise: float = option(0.3, "share of the colour loss that stays for objects with such masks", ge=0)
    copy_paste: bool = option(True, "paste objects with good masks over others, where there are such masks")
    copy_paste_probability: float = option(
        0.5, "probability of a paste: per object", needs={"copy_paste": ()}, ge=0, le=1
    )

    @model_validator(mode="after")
    def _guides_and_masks_come_to_speak(self) -> "MalConfig":
        if self.guides and self.rounds < self.guided_from:
            raise PydanticCustomError(
                "guides", f"guides speak from round {self.guided_from} on: raise rounds, or lower guided_from"
            )
        for name in ("label_weight", "labelled_pairwise", "copy_paste_probability"):
            if self.rounds == 1 and not self.guides and getattr(self, name) != type(self).model_fields[name].default:
                raise PydanticCustomError("no_effect", f"{name} does nothing without rounds of 2 or more, or guides")
        return self

    def steps_for(self, samples: int) -> int:
        return self.steps or max(self.least_steps, super().steps_for(samples))

    @property
    def canvas_px(self) -> int:
        """Side of the stored pictures that crops of all rounds are cut from: a crop shows three quarters or less."""
        return max(self._largest_crop_px * 3 // 2, _LEAST_CANVAS_PX)

    @property
    def paste_probability(self) -> float:
        """Of a paste per object, 0 where nothing is to be pasted."""
        return self.copy_paste_probability if self.copy_paste else 0.0

    @property
    def _largest_crop_px(self) -> int:
        return max(self.crop_px, self.last_crop_px) if self.rounds > 1 else self.crop_px

    def by_round(self) -> "list[MalConfig]":
        """The config of every round; crops grow evenly to the last one's as the masks to learn from get better."""
        growth = (self._largest_crop_px / self.crop_px) ** (1 / max(self.rounds - 1, 1))
        sides = [_CROP_STEP_PX * round(self.crop_px * growth**number / _CROP_STEP_PX) for number in range(self.rounds)]
        return [self.model_copy(update={"crop_px": side}) for side in sides]

    @property
    def network(self) -> tuple[str | int, ...]:
        return (self.method, self.backbone, self.width)

    def work(self, images: int, objects: int) -> Work:
        samples = min(objects, self.max_objects)
        rounds = [one._work(samples, one.crop_px) for one in self.by_round()]
        pictures = 1 + self.drawn  # of an object: its crop, and drawn ones
        return Work(
            megapixels=pictures * sum(one.megapixels for one in rounds),
            step_megapixels=pictures * max(one.step_megapixels for one in rounds),
            scratch_bytes=samples * 3 * self.canvas_px**2,
        )

    def tables(self) -> tuple[str, ...]:
        return ("manifest", *(f"candidates/{name}" for name in self.guides))
