"""The features that all instances of an image share: one stride-8 map of a few channels."""

from jaxtyping import Float
from torch import Tensor, nn

from pseudolabel.condinst.fcos import group_norm
from pseudolabel.condinst.mask_head import aligned_upsample


class MaskBranch(nn.Module):
    """P3, P4, P5 to (b, out_channels, H/8, W/8).

    Source: CondInst (arXiv 2003.05664), section 3.2.
    """

    def __init__(self, in_channels: int, channels: int, out_channels: int, *, norm: str = "batch") -> None:
        super().__init__()
        self.refine = nn.ModuleList(_block(in_channels, channels, norm) for _ in range(3))
        self.tower = nn.Sequential(*(_block(channels, channels, norm) for _ in range(4)))
        self.out = nn.Conv2d(channels, out_channels, 1)

    def forward(self, pyramid: list[Float[Tensor, "b c h w"]]) -> Float[Tensor, "b m h8 w8"]:
        p3, p4, p5 = (refine(level) for refine, level in zip(self.refine, pyramid, strict=False))
        result: Tensor = self.out(self.tower(p3 + aligned_upsample(p4, 2) + aligned_upsample(p5, 4)))
        return result


def _block(inputs: int, outputs: int, norm: str) -> nn.Sequential:
    layer: nn.Module = nn.BatchNorm2d(outputs) if norm == "batch" else group_norm(outputs)
    conv = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    return nn.Sequential(conv, layer, nn.ReLU(inplace=True))
