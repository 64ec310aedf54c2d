"""Image features at strides 4, 4, 8, 16, 16, frozen where they are pretrained."""

from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from timm.models import get_pretrained_cfg
from torch import Tensor, nn

from pseudolabel.encoders.encoder import BATCH_NORMS, HALF, IMAGENET_MEAN, IMAGENET_STD, TinyBody, load_encoder_weights
from pseudolabel.errors import ConfigError, InputError
from pseudolabel.registry import did_you_mean

STRIDES = (4, 4, 8, 16, 16)
COARSEST = 16  # sides of images are multiples of this


class Backbone(nn.Module):
    """Five stages of an encoder that normalises its own input; the first is pooled to stride 4, the last not to 32.

    Source: Ahn et al., IRNet: x1 to x5 at these strides, BatchNorm fixed, no gradient into pretrained stages.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, body: nn.Module, channels: tuple[int, ...], normalisation: tuple[Any, Any], *, frozen: bool
    ) -> None:
        super().__init__()
        self.body, self.channels, self.frozen = body, channels, frozen
        mean, std = (torch.tensor(list(values)).view(1, 3, 1, 1) * 255 for values in normalisation)
        self.register_buffer("mean", mean, persistent=False)
        self.register_buffer("std", std, persistent=False)
        if frozen:
            self.requires_grad_(False)

    def train(self, mode: bool = True) -> "Backbone":
        """Training mode for all but BatchNorm, whose statistics are never touched."""
        super().train(mode and not self.frozen)
        for module in self.modules():
            if isinstance(module, BATCH_NORMS):
                module.eval()
        return self

    def forward(self, images: Float[Tensor, "b 3 H W"]) -> list[Float[Tensor, "b c h w"]]:
        """Features of RGB images with values from 0 to 255.

        Raises:
            ValueError: a side is no multiple of 16.
        """
        if images.shape[2] % COARSEST or images.shape[3] % COARSEST:
            raise ValueError(f"sides must be multiples of {COARSEST}, got {tuple(images.shape[2:])}")
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            stages: list[Tensor] = list(self.body((images - self.mean) / self.std))[-5:]
            stages[0] = nn.functional.max_pool2d(stages[0], 3, stride=2, padding=1)
        return stages


def build_backbone(name: str, weights: str, normalisation: tuple[Any, Any] | None = None) -> Backbone:
    """The backbone of that name.

    Args:
        name: `tiny` (trained with the heads, from chance), or an encoder of segmentation-models-pytorch (frozen):
            `resnet50` and `resnet101` as in the paper, `mobilenet_v2` as the small one, `tu-NAME` for timm's.
        weights: a file in torchvision's names, `hub` for ImageNet weights out of the hub's cache, `none` for `tiny`
            or where the weights follow by themselves.
        normalisation: mean and standard deviation of inputs in [0, 1]; default: those of the encoder's usual weights.

    Raises:
        ConfigError: no such encoder, or one that cannot be fed at these strides, or no weights for a frozen one.
        InputError: the file does not hold the encoder's weights.
    """
    if name == "tiny":
        if weights != "none":
            raise ConfigError("backbone 'tiny' is trained from chance: use --backbone-weights none")
        return Backbone(_without_last_stride(TinyBody()), (16, 32, 48, 64, 64), (HALF, HALF), frozen=False)
    body = _smp_encoder(name, weights)
    channels, entry = tuple(body.out_channels[-5:]), normalisation or _normalisation(name)
    backbone = Backbone(body, channels, entry, frozen=True)
    if weights not in ("hub", "none"):
        load_encoder_weights(backbone, Path(weights))  # type: ignore[arg-type]
    return backbone


def _smp_encoder(name: str, weights: str) -> Any:
    import segmentation_models_pytorch as smp

    known = smp.encoders.get_encoder_names()
    if name not in known and not name.startswith("tu-"):
        raise ConfigError(f"no backbone called {name!r}{did_you_mean(name, ['tiny', *known])}")
    if name == "mobilenet_v2" and weights == "hub":
        raise ConfigError("backbone 'mobilenet_v2' has no weights on the hub: give a file with --backbone-weights")
    imagenet = "imagenet" if weights == "hub" else None
    try:
        if name.startswith("tu-"):
            return _timm_encoder(name, imagenet)
        return _without_last_stride(smp.encoders.get_encoder(name, weights=imagenet))
    except OSError as error:
        raise InputError(
            f"backbone {name!r}: its weights are not in the hub's cache and cannot be fetched; "
            "give a file with --backbone-weights"
        ) from error


def _timm_encoder(name: str, weights: str | None) -> Any:
    """timm's encoder at stride 16, where timm dilates the last stage instead of striding.

    Raises:
        ConfigError: timm knows no such name, or cannot do that with it, or it has other stages.
    """
    import segmentation_models_pytorch as smp

    try:
        body = smp.encoders.get_encoder(name, weights=weights, output_stride=COARSEST).eval()
        with torch.no_grad():
            sides = [stage.shape[-1] for stage in body(torch.zeros((1, 3, 64, 64)))]
    # what timm's many encoders raise where they cannot be dilated; the user hears it and chooses another
    except (RuntimeError, ValueError, TypeError, NotImplementedError, AssertionError) as error:
        raise ConfigError(f"backbone {name!r} cannot be had from timm at stride {COARSEST} ({error})") from None
    if sides[-5:] != [32, 16, 8, 4, 4]:
        raise ConfigError(f"backbone {name!r} gives sides {sides} for 64 pixels, wanted 32, 16, 8, 4, 4")
    return body


def _normalisation(name: str) -> tuple[Any, Any]:
    """Mean and standard deviation of inputs in [0, 1] for which the encoder's usual weights were trained."""
    if name == "mobilenet_v2":
        return HALF, HALF
    card = get_pretrained_cfg(name.removeprefix("tu-")) if name.startswith("tu-") else None
    return (card.mean, card.std) if card else (IMAGENET_MEAN, IMAGENET_STD)


def _without_last_stride(body: Any) -> nn.Module:
    """The body with its last stage at the stride of the one before, without dilation."""
    last = [body.stages[-1]] if isinstance(body, TinyBody) else body.get_stages()[32]
    for part in last:
        for module in part.modules():
            if isinstance(module, nn.Conv2d) and module.stride == (2, 2):
                module.stride = (1, 1)
    body.eval()
    stages: nn.Module = body
    return stages
