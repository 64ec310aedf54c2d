"""CondInst: the detector, the mask branch and the dynamic head in one module."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from pseudolabel.condinst.config import CondInstConfig
from pseudolabel.condinst.fcos import Dense, FcosHead
from pseudolabel.condinst.mask_branch import MaskBranch
from pseudolabel.condinst.mask_head import HeadShape, dynamic_masks, upsample_masks
from pseudolabel.condinst.pyramid import Pyramid
from pseudolabel.encoders.build import build_encoder


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
        self.head_shape = HeadShape(config.mask_features, config.mask_head_channels)
        self.head = FcosHead(config.channels, num_classes, self.head_shape.parameters, convs=config.convs)
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
                self.head_shape,
            )
            return upsample_masks(coarse)
