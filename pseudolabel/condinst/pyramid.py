"""A feature pyramid above an encoder: P3 to P7, at strides 8 to 128."""

from collections import OrderedDict

from jaxtyping import Float
from torch import Tensor, nn
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from pseudolabel.encoders.encoder import Encoder

STRIDES = (8, 16, 32, 64, 128)


class Pyramid(nn.Module):
    """P3 to P7 of one width: P6 is a stride-2 convolution of P5, P7 of ReLU(P6). Source: FCOS."""

    def __init__(self, encoder: Encoder, channels: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.fpn = FeaturePyramidNetwork(list(encoder.channels), channels, LastLevelP6P7(channels, channels))

    def forward(self, images: Float[Tensor, "b 3 H W"]) -> list[Float[Tensor, "b c h w"]]:
        if images.shape[2] % 32 or images.shape[3] % 32:
            raise ValueError(f"sides must be divisible by 32, got {tuple(images.shape[2:])}: pad the batch")
        named = OrderedDict((f"c{index}", feature) for index, feature in enumerate(self.encoder(images), 3))
        return list(self.fpn(named).values())
