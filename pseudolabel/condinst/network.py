"""CondInst: the detector, the mask branch and the dynamic head in one module."""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from pseudolabel.condinst.fcos import Dense, FcosHead
from pseudolabel.condinst.mask_branch import MaskBranch
from pseudolabel.condinst.mask_head import HeadShape, dynamic_masks, upsample_masks
from pseudolabel.condinst.pyramid import Pyramid
from pseudolabel.config import Config, option
from pseudolabel.encoders.build import build_encoder


class CondInstConfig(Config):
    """The network's shape; saved beside its weights."""

    backbone: str = option("resnet50", "tiny, mobilenet_v2, resnet50, resnet101, swin_tiny, or any timm name")
    backbone_weights: str = option("hub", "a file, hub, or none to start from chance")
    channels: int = option(256, "width of the pyramid and of the detector's towers", ge=8)
    convs: int = option(4, "convolutions per tower", ge=1)
    mask_branch_channels: int = option(128, "width of the mask branch", ge=8)
    mask_branch_norm: Literal["batch", "group"] = option("batch", "normalisation of the mask branch")
    mask_features: int = option(16, "channels that the mask branch gives (CondInst's paper: 8)", ge=1)
    mask_head_channels: int = option(8, "width of the dynamic head", ge=1)

    @property
    def head_shape(self) -> HeadShape:
        """The dynamic head's widths: 169, 233 or 593 parameters for (8, 8), (16, 8), (16, 16)."""
        return HeadShape(self.mask_features, self.mask_head_channels)


@dataclass(frozen=True, slots=True)
class Features:
    """One forward pass: what the detector says, and what masks are made of."""

    dense: Dense
    masks: Float[Tensor, "b m h8 w8"]


class CondInst(nn.Module):
    """Detections and masks of a batch of RGB images, 0 to 255, whose sides are multiples of 32.

    Source: CondInst (arXiv 2003.05664).
    """

    def __init__(self, config: CondInstConfig, num_classes: int) -> None:
        super().__init__()
        if num_classes < 1:
            raise ValueError(f"expected at least one class, got {num_classes}")
        self.config = config
        self.num_classes = num_classes
        self.pyramid = Pyramid(build_encoder(config.backbone, config.backbone_weights), config.channels)
        self.head = FcosHead(config.channels, num_classes, config.head_shape.parameters, convs=config.convs)
        self.mask_branch = MaskBranch(
            config.channels, config.mask_branch_channels, config.mask_features, norm=config.mask_branch_norm
        )

    def forward(self, images: Float[Tensor, "b 3 H W"]) -> Features:
        pyramid = self.pyramid(images)
        return Features(self.head(pyramid), self.mask_branch(pyramid[:3]))

    def mask_logits(
        self, features: Features, image_index: Int[Tensor, "n"], location_index: Int[Tensor, "n"]
    ) -> Float[Tensor, "n h w"]:
        """Stride-4 mask logits of the instances that these locations speak for, ordered by image.

        Raises:
            ValueError: `image_index` does not ascend.
        """
        if len(image_index) > 1 and bool((image_index[1:] < image_index[:-1]).any()):
            raise ValueError("instances must be ordered by image")
        parameters = self.head.parameters_at(features.dense, image_index, location_index)
        locations = features.dense.locations
        with torch.autocast(features.masks.device.type, enabled=False):
            coarse = dynamic_masks(
                features.masks,
                parameters,
                image_index,
                locations.xy[location_index],
                locations.size_of_interest[location_index],
                self.config.head_shape,
            )
            return upsample_masks(coarse)
