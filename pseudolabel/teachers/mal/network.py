"""One class-agnostic mask of the object in the middle of a crop, told where its box is."""

from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from pseudolabel.encoders import encoder as encoders
from pseudolabel.encoders.build import build_encoder
from pseudolabel.encoders.encoder import Encoder

CUES = 10  # see crops.cue_planes
STRIDE = 4


class MalNetwork(nn.Module):
    """Encoder, feature pyramid, mask logits at stride 4; cues about the boxes enter the pyramid at every level."""

    def __init__(self, encoder: Encoder, *, width: int = 64) -> None:
        super().__init__()
        fold_batch_norm(encoder.body)
        self.encoder = encoder
        channels = _channels(encoder)
        self.has_fine = len(channels) == 4
        self.stem = nn.Identity() if self.has_fine else nn.Sequential(_block(3, 32, stride=2), _block(32, 32, stride=2))
        channels = channels if self.has_fine else (32, *channels)
        self.lateral = nn.ModuleList(nn.Conv2d(count + CUES, width, 1) for count in channels)
        self.smooth = nn.ModuleList(_block(width, width) for _ in channels)
        self.head = nn.Sequential(_block(2 * width, width), _block(width, width), nn.Conv2d(width, 1, 1))

    def forward(self, images: Float[Tensor, "b 3 H W"], cues: Float[Tensor, "b c h w"]) -> Float[Tensor, "b h w"]:
        """Mask logits.

        Args:
            images: crops as RGB, 0 to 255, sides divisible by 32.
            cues: on the stride-4 grid.
        """
        levels = [
            lateral(
                torch.cat(
                    [level, F.adaptive_avg_pool2d(cues, (level.shape[-2], level.shape[-1])).to(level.dtype)], dim=1
                )
            )
            for lateral, level in zip(self.lateral, self._levels(images), strict=True)
        ]
        for index in range(len(levels) - 2, -1, -1):
            levels[index] = levels[index] + _resized(levels[index + 1], levels[index])
        smooth = [block(level) for block, level in zip(self.smooth, levels, strict=True)]
        context = torch.stack([_resized(level, smooth[0]) for level in smooth[1:]]).sum(dim=0)
        logits: Tensor = self.head(torch.cat([smooth[0], context], dim=1))[:, 0]
        return logits.float()

    def _levels(self, images: Tensor) -> list[Tensor]:
        """Features at strides 4 to 32."""
        encoder = self.encoder
        normal = ((images - encoder.mean) / encoder.std).contiguous(memory_format=torch.channels_last)
        raw = encoder.body(normal)
        coarse = [
            level if level.shape[1] == count else level.permute(0, 3, 1, 2)
            for level, count in zip(raw[-3:], encoder.channels, strict=True)
        ]
        return [raw[-4] if self.has_fine else self.stem(normal), *coarse]


def build_network(backbone: str, weights: str, *, width: int = 64) -> MalNetwork:
    """The network over an encoder; see `encoders.resolve` for what its name and weights may be."""
    return MalNetwork(build_encoder(backbone, weights), width=width).to(memory_format=torch.channels_last)


def freeze_early(network: MalNetwork) -> int:
    """Stop training the encoder up to stride 4, where its own features at that stride are used."""
    return encoders.freeze_early(network.encoder) if network.has_fine else 0


def fold_batch_norm(module: nn.Module) -> None:
    """Put every BatchNorm that follows a convolution in a `Sequential` into that convolution, in place.

    Its statistics are never touched in training, so the function is the same, with fewer passes over memory.
    """
    for child in module.children():
        fold_batch_norm(child)
    if not isinstance(module, nn.Sequential):
        return
    names = list(module._modules)
    for first, second in pairwise(names):
        conv, norm = module._modules[first], module._modules[second]
        if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
            module._modules[first] = fuse_conv_bn_eval(conv.eval(), norm.eval())
            module._modules[second] = nn.Identity()


def _channels(encoder: Encoder) -> tuple[int, ...]:
    """Widths of the features at strides 4, 8, 16, 32, or without the first where the encoder has none."""
    with torch.no_grad():
        raw = encoder.body(torch.zeros(1, 3, 64, 64))
    fine = [raw[-4].shape[1]] if len(raw) > 3 and raw[-4].shape[-1] == 64 // STRIDE else []
    return (*fine, *encoder.channels)


def _block(inputs: int, outputs: int, *, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False),
        nn.GroupNorm(8, outputs),
        nn.ReLU(inplace=True),
    )


def _resized(level: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(level, size=like.shape[-2:], mode="bilinear", align_corners=False)
