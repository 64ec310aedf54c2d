"""The network of SISeg: a shared backbone, a displacement head and a class-agnostic boundary head, at stride 4."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pseudolabel.encoders.encoder import DenseEncoder

STRIDE = 4
_LAST_SCALES = (1, 1, 2, 4, 4)  # what brings strides 4, 4, 8, 16, 16 to 4
RIM_PX = 32  # of mirrored picture on every side, see `SisegNetwork.features`


class Fields(NamedTuple):
    """What the heads say about a batch, on the stride-4 grid."""

    displacement: Float[Tensor, "b 2 h w"]  # (dy, dx) towards the centroid, in cells
    boundary_logits: Float[Tensor, "b h w"]


class Block(nn.Module):
    """1x1 convolution, GroupNorm, bilinear upsampling, ReLU."""

    def __init__(self, inputs: int, outputs: int, groups: int, scale: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 1, bias=False)
        self.norm = nn.GroupNorm(groups, outputs)
        self.scale = scale

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d H W"]:
        x = self.norm(self.conv(x))
        if self.scale > 1:
            x = nn.functional.interpolate(x, scale_factor=self.scale, mode="bilinear", align_corners=False)
        return x.relu()


class BoundaryHead(nn.Module):
    """All stages at 32 channels and stride 4, side by side, to one logit."""

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        pairs = zip(channels, _LAST_SCALES, strict=True)
        self.blocks = nn.ModuleList(Block(inputs, 32, 4, scale) for inputs, scale in pairs)
        self.last = nn.Conv2d(32 * len(channels), 1, 1)

    def forward(self, features: Sequence[Float[Tensor, "b c h w"]]) -> Float[Tensor, "b H W"]:
        maps = [block(feature) for block, feature in zip(self.blocks, features, strict=True)]
        logits: Tensor = self.last(torch.cat(maps, dim=1))
        return logits.squeeze(1)


class DisplacementHead(nn.Module):
    """Coarse stages merged at stride 8, then with the fine ones at stride 4, to two components."""

    def __init__(self, channels: Sequence[int], width: int) -> None:
        super().__init__()
        narrow, middle = width // 4, width // 2
        self.fine = nn.ModuleList([Block(channels[0], narrow, 8), Block(channels[1], middle, 16)])
        scales = zip(channels[2:], (1, 2, 2), strict=True)
        self.coarse = nn.ModuleList(Block(inputs, width, 16, scale) for inputs, scale in scales)
        self.merge_coarse = Block(3 * width, width, 16, 2)
        self.merge = Block(narrow + middle + width, width, 16)
        self.last = nn.Conv2d(width, 2, 1, bias=False)

    def forward(self, features: Sequence[Float[Tensor, "b c h w"]]) -> Float[Tensor, "b 2 H W"]:
        fine = [block(feature) for block, feature in zip(self.fine, features[:2], strict=True)]
        coarse = [block(feature) for block, feature in zip(self.coarse, features[2:], strict=True)]
        fine.append(_crop(self.merge_coarse(torch.cat(coarse, dim=1)), fine[0]))
        field: Tensor = self.last(self.merge(torch.cat(fine, dim=1)))
        return field


class SisegNetwork(nn.Module):
    """Heads above a backbone. In evaluation the mean displacement of the training images is subtracted.

    Source: IRNet's tables; SISeg's DFM and CBR (arXiv 2308.00949).
    """

    mean_displacement: Tensor

    def __init__(self, backbone: DenseEncoder, *, width: int = 256) -> None:
        super().__init__()
        if width % 64:
            raise ValueError(f"the heads' width must be a multiple of 64, got {width}")
        self.backbone = backbone
        self.boundary_head = BoundaryHead(backbone.channels)
        self.displacement_head = DisplacementHead(backbone.channels, width)
        self.register_buffer("mean_displacement", torch.zeros(2))

    def forward(self, images: Float[Tensor, "b 3 H W"]) -> Fields:
        """Fields of RGB images with values from 0 to 255 and sides that are multiples of 16."""
        return self.heads(self.features(images))

    def features(self, images: Float[Tensor, "b 3 H W"]) -> list[Float[Tensor, "b c h w"]]:
        """The backbone's features, as if the picture went on beyond its sides.

        Convolutions see zeros there, which features tell, and the boundary head takes for the border of an object: it
        was twice as high along the sides of a picture as inside. So the picture is mirrored for `RIM_PX` on every side,
        and the features of that are cut away.
        """
        mode = "reflect" if min(images.shape[-2:]) > RIM_PX else "replicate"
        wide = self.backbone(nn.functional.pad(images, (RIM_PX,) * 4, mode=mode))
        rims = [RIM_PX // (STRIDE * scale) for scale in _LAST_SCALES]
        return [level[..., rim:-rim, rim:-rim] for level, rim in zip(wide, rims, strict=True)]

    def heads(self, features: Sequence[Float[Tensor, "b c h w"]]) -> Fields:
        """Fields of the backbone's features."""
        displacement: Tensor = self.displacement_head(features)
        if not self.training:
            displacement = displacement - self.mean_displacement.view(1, 2, 1, 1)
        return Fields(displacement, self.boundary_head(features))


def _crop(larger: Tensor, like: Tensor) -> Tensor:
    return larger[..., : like.shape[-2], : like.shape[-1]]
