"""Options of SISeg: network and recipe; imports no torch. Lengths are pixels of the resized image, a cell has four."""

from dataclasses import replace

from pseudolabel.config import option
from pseudolabel.encoders.config import EncoderConfig
from pseudolabel.encoders.resolve import BACKBONE_HELP
from pseudolabel.training.config import ScaleConfig, TrainConfig, Work

# of the features of a photograph of 640x480, as `train.Samples` keeps them; of other encoders as of the largest
VIEW_BYTES = {"mobilenet_v2": 5_100_000, "resnet50": 24_600_000}


class SisegCard(EncoderConfig):
    """How the network is built and fed: what stands beside the weights."""

    backbone: str = option("mobilenet_v2", BACKBONE_HELP + "; all but tiny stay as pretrained", group="main")
    head_width: int = option(256, "channels of the displacement head, a multiple of 64", ge=64)
    scale: float = option(
        1.0, "resize images by this; objects want to be 10 to 100 cells of 4 px wide", group="main", gt=0, le=8
    )


class SisegRecipe(SisegCard, ScaleConfig, TrainConfig):
    """How the heads are trained."""

    steps: int = option(600, "optimiser steps", group="main", ge=1)
    batch_size: int = option(4, "crops per step and process", group="main", ge=1)
    learning_rate: float = option(
        2e-3, "of the new layers: the displacement head; the boundary head's is a tenth", group="main", gt=0
    )
    weight_decay: float = option(1e-4, "of AdamW", ge=0)
    crop: int = option(512, "side of a training crop, a multiple of 16", ge=96, multiple_of=16)
    radius: int = option(10, "of the pairs, in cells", ge=2, le=20)
    box_pairs: bool = option(
        True,
        "where boxes are given, cells of one class in different boxes are different objects' (the paper has no boxes)",
    )
    weight_object: float = option(1.0, "of the displacement term on objects", ge=0)
    weight_background: float = option(1.0, "of the displacement term on background", ge=0)
    weight_boundary: float = option(1.0, "of the boundary term", ge=0)
    checkpoint_every: int = option(
        100, "steps between two checkpoints to go on from", changes_result=False, group="machine", ge=1
    )
    cache_gib: float = option(
        4.0, "memory for features of a frozen backbone", changes_result=False, group="machine", ge=0
    )

    @property
    def network(self) -> tuple[str | int, ...]:
        return (self.backbone, self.head_width)

    def work(self, images: int, objects: int) -> Work:
        """Features are made once for both views of an image where they fit `cache_gib`, else for each crop anew."""
        del objects
        crops, views = self.steps * self.batch_size, 2 * images
        kept = min(views, self.cache_gib * 2**30 / VIEW_BYTES.get(self.backbone, max(VIEW_BYTES.values())))
        anew = crops + images  # each image once more, for the mean displacement
        encoded = anew if kept < views else min(views, anew)
        return replace(self._work(images, self.crop), encoded=encoded, kept=kept)
