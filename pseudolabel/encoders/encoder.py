"""Encoders that normalise their own input: strides 8, 16, 32 for detectors, 4, 4, 8, 16, 16 for SISeg."""

import torch
from jaxtyping import Float
from timm.models._features import FeatureListNet
from torch import Tensor, nn

from pseudolabel.encoders.bodies import Body
from pseudolabel.errors import ConfigError

SIDE = 32  # of the smallest image that an encoder takes
COARSEST = 16  # sides of a dense encoder's images are multiples of this
DENSE_STRIDES = (4, 4, 8, 16, 16)
EARLY = 4  # stride up to which `freeze_early` keeps an encoder as it is
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.SyncBatchNorm)


class Encoder(nn.Module):
    """C3, C4, C5 of RGB images, 0 to 255; pretrained BatchNorm stays as it was trained.

    Mean and standard deviation are of pixels from 0 to 255 and are saved with the weights, to which they belong.
    """

    LEVELS = 3
    mean: Tensor
    std: Tensor

    def __init__(self, body: Body) -> None:
        super().__init__()
        self.body = body.module
        self.channels = body.channels[-self.LEVELS :]
        self.register_buffer("mean", torch.empty(1, 3, 1, 1))
        self.register_buffer("std", torch.empty(1, 3, 1, 1))
        self.normalise_by(body.mean, body.std)
        for module in self.modules():
            if isinstance(module, BATCH_NORMS):
                module.requires_grad_(False).eval()  # at once: who asks it for its shapes must not touch statistics

    def normalise_by(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        """Take mean and standard deviation of RGB inputs in [0, 1]."""
        for buffer, values in ((self.mean, mean), (self.std, std)):
            buffer.copy_(torch.tensor(values).view(1, 3, 1, 1) * 255)

    def train(self, mode: bool = True) -> "Encoder":
        """Training mode for all but BatchNorm, whose statistics are never touched."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, BATCH_NORMS):
                module.eval()
        return self

    def forward(self, images: Float[Tensor, "b 3 H W"]) -> list[Float[Tensor, "b c h w"]]:
        features = self.body((images.float() - self.mean) / self.std)[-self.LEVELS :]
        return [
            feature if feature.shape[1] == width else feature.permute(0, 3, 1, 2).contiguous()
            for feature, width in zip(features, self.channels, strict=True)
        ]


class DenseEncoder(Encoder):
    """Five stages of an encoder; the first is pooled to stride 4, the last is at stride 16, not 32.

    Source: Ahn et al., IRNet: x1 to x5 at these strides, BatchNorm fixed, no gradient into pretrained stages.
    """

    LEVELS = 5

    def __init__(self, body: Body, *, frozen: bool) -> None:
        super().__init__(body)
        self.frozen = frozen
        if frozen:
            self.requires_grad_(False)
            self.eval()

    def train(self, mode: bool = True) -> "DenseEncoder":
        """Training mode for one that is not frozen, BatchNorm aside."""
        super().train(mode and not self.frozen)
        return self

    def forward(self, images: Float[Tensor, "b 3 H W"]) -> list[Float[Tensor, "b c h w"]]:
        """Features of RGB images with values from 0 to 255.

        Raises:
            ValueError: a side is no multiple of 16.
        """
        if images.shape[2] % COARSEST or images.shape[3] % COARSEST:
            raise ValueError(f"sides must be multiples of {COARSEST}, got {tuple(images.shape[2:])}")
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            finest, *others = super().forward(images)
            return [nn.functional.max_pool2d(finest, 3, stride=2, padding=1), *others]


def freeze_early(encoder: Encoder) -> int:
    """Stop training what the features at stride 4 come from; the number of parameters that are frozen.

    Those layers have the largest grids and cost most of a step, and hold what pretraining knows of edges and colours.

    Raises:
        ConfigError: the encoder does not show where its stride 4 ends.
    """
    early = [parameter for parameter in _early_parameters(encoder) if parameter.requires_grad]
    for parameter in early:
        parameter.requires_grad_(False)
    return len(early)


def _early_parameters(encoder: Encoder) -> list[nn.Parameter]:
    body = encoder.body
    if isinstance(body, FeatureListNet):
        strides = {info["module"].replace(".", "_"): info["reduction"] for info in body.feature_info.info}
        last = max(place for place, name in enumerate(body) if strides.get(name, SIDE) <= EARLY)
        return [parameter for part in list(body.values())[: last + 1] for parameter in part.parameters()]
    features = body(torch.zeros(1, 3, 2 * SIDE, 2 * SIDE, device=encoder.mean.device))
    if len(features) < 4:
        raise ConfigError(f"an encoder of type {type(body).__name__} cannot be frozen in part: say --no-freeze")
    parameters = [one for one in body.parameters() if one.requires_grad]
    gradients = torch.autograd.grad(features[-4].sum(), parameters, allow_unused=True)
    return [one for one, gradient in zip(parameters, gradients, strict=True) if gradient is not None]
