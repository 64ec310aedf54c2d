"""A small network for sets of drawn or microscopic scenes, where no pretrained weights are at hand."""

from math import gcd

from torch import Tensor, nn


class TinyBody(nn.Module):
    """Five stages of 3x3 convolutions with GroupNorm, at strides 2, 4, 8, 16, 32."""

    def __init__(self, channels: tuple[int, ...] = (16, 32, 48, 64, 64)) -> None:
        super().__init__()
        widths = zip((3, *channels), channels, strict=False)
        self.channels = channels
        self.stages = nn.ModuleList(nn.Sequential(_conv(a, b, 2), _conv(b, b, 1)) for a, b in widths)

    def forward(self, x: Tensor) -> list[Tensor]:
        features = []
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        return features


def _conv(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
    return nn.Sequential(conv, nn.GroupNorm(gcd(8, outputs), outputs), nn.ReLU(inplace=True))
