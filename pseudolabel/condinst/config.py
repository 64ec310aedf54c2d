"""Shape of CondInst; imports no torch."""

from typing import Literal

from pseudolabel.config import option
from pseudolabel.encoders.config import PretrainedConfig


class CondInstConfig(PretrainedConfig):
    """The network's shape; saved beside its weights."""

    channels: int = option(256, "width of the pyramid and of the detector's towers", ge=8)
    convs: int = option(4, "convolutions in each tower of the heads", ge=1)
    mask_branch_channels: int = option(128, "width of the mask branch", ge=8)
    mask_branch_norm: Literal["batch", "group"] = option(
        "group", "normalisation of the mask branch; batch, as published, wants large batches", group="paper"
    )
    mask_features: int = option(16, "channels that the mask branch gives (CondInst's paper: 8)", group="paper", ge=1)
    mask_head_channels: int = option(8, "width of the dynamic mask head", ge=1)
