"""Options of students: network, labels, views and recipe; imports no torch."""

from typing import Literal

from pseudolabel.config import Config, option
from pseudolabel.encoders.config import EncoderConfig
from pseudolabel.students.names import STUDENTS
from pseudolabel.training.config import FinetuneConfig, ScaleConfig


class StudentConfig(EncoderConfig):
    """A student's shape; saved beside its weights."""

    model: str = option("condinst", "which model: " + ", ".join(STUDENTS), group="main")
    width: int = option(256, "channels of the pyramid and of the heads", ge=40, multiple_of=8)
    convs: int = option(4, "convolutions in each tower of the heads", ge=1)
    finest_px: float = option(
        64.0,
        "half-size of objects up to which the finest level learns them; less where objects are small",
        needs={"model": ("condinst",)},
        gt=0,
    )
    detections: int = option(100, "most objects of an image", ge=1)
    least_score: float = option(0.05, "lower scores are left out: of what the student reports", ge=0, le=1)


class LabelConfig(Config):
    """How pseudo labels become something to learn from."""

    mask_weight: Literal["score", "none"] = option("score", "weight of a mask's loss: its score, or 1")
    mask_threshold: float = option(0.0, "masks with a lower score train their box alone", ge=0, le=1)
    review_masks: bool = option(True, "masks to be reviewed train, by their score; off: their box alone")
    least_mask_share: float = option(
        0.1, "refuse to train where fewer of the objects have a mask; 0: train all the same", ge=0, le=1
    )
    given_masks: bool = option(True, "learn the labels' masks; off: each box filled (a baseline)")
    unsure: Literal["left_out", "learned"] = option(
        "left_out", "pixels of a mask that `fuse` was not sure of", needs={"given_masks": ()}
    )


class AugmentConfig(ScaleConfig):
    """What is done to an image before the student sees it."""

    image_px: int = option(512, "side of the square input, a multiple of 32", group="main", ge=32, multiple_of=32)
    views: Literal["plain", "weak", "strong", "strong_blur"] = option(
        "strong", "plain: resized alone; weak: scale, crop, flip; strong: colours too; strong_blur: and blur"
    )


class RecipeConfig(FinetuneConfig):
    """How a student learns."""

    batch_size: int = option(4, "images per step and process", group="main", ge=1)
    ema: float = option(
        0.998, "momentum of the moving average: of the one that becomes the model; 0 = none", ge=0, lt=1
    )
    paste: float = option(0.0, "probability per image to paste a good object over a peer of its class", ge=0, le=1)
    validate_every: int = option(
        500, "steps between validations; 0 = after the last one alone", needs={"validation": ()}, ge=0
    )
    patience: int = option(
        0,
        "stop after so many validations without a better AP, 0 = never",
        needs={"validation": (), "validate_every": ()},
        ge=0,
    )
