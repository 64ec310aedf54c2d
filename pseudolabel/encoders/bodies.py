"""Encoders by name, without their input's normalisation: networks that give a list of features, finest first.

The names are the same for SISeg, teachers and students: `tiny` (this project's own), `mobilenet_v2` (of
segmentation-models-pytorch, which takes torchvision's parameter names), `swin_tiny`, `resnet50` and every other name of
timm, and `smp-encoder:NAME` for what an architecture of segmentation-models-pytorch calls NAME.
"""

from pathlib import Path
from typing import Any, NamedTuple

import segmentation_models_pytorch as smp
import timm
from torch import nn

from pseudolabel.encoders.tiny import TinyBody
from pseudolabel.errors import ConfigError
from pseudolabel.registry import did_you_mean
from pseudolabel.weights import load_weights, read_state_dict

SMP = "smp-encoder:"
TIMM_NAMES = {"swin_tiny": "swin_tiny_patch4_window7_224"}
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
HALF = (0.5, 0.5, 0.5)
_PYRAMID, _DENSE = [8, 16, 32], [2, 4, 8, 16, 16]
_RESNETS = tuple(f"resnet{depth}" for depth in (18, 34, 50, 101, 152))
# what timm's many networks raise where they cannot be dilated; the user hears it and chooses another
_NOT_DILATED = (RuntimeError, ValueError, TypeError, NotImplementedError, AssertionError)


class Body(NamedTuple):
    """A network, the widths of its features, and mean and deviation of the inputs in [0, 1] that it wants."""

    module: Any  # an nn.Module, of whose parts each library has its own
    channels: tuple[int, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]


def smp_name(name: str) -> str | None:
    """What segmentation-models-pytorch calls the encoder of that name; None where it is not taken from there."""
    return "mobilenet_v2" if name == "mobilenet_v2" else name.removeprefix(SMP) if name.startswith(SMP) else None


def timm_name(name: str) -> str:
    """What timm calls the encoder of that name."""
    return TIMM_NAMES.get(name, name)


def check_name(name: str) -> None:
    """Passes if there is an encoder of that name.

    Raises:
        ConfigError: there is none; the message says which name is near.
    """
    inner = smp_name(name)
    if inner is not None:
        known = inner in smp.encoders.encoders or (inner.startswith("tu-") and timm.is_model(inner[3:]))
        names = [SMP + one for one in smp.encoders.encoders]
    else:
        known = name == "tiny" or timm.is_model(timm_name(name))
        names = ["tiny", "mobilenet_v2", *TIMM_NAMES, *timm.list_models()]
    if not known:
        raise ConfigError(f"no backbone called {name!r}{did_you_mean(name.removeprefix('tu-'), names)}")


def pyramid_body(name: str, hub_weights: Path | None = None) -> Body:
    """The encoder of that name, whose last three features are at strides 8, 16 and 32.

    Args:
        hub_weights: the file that the hub has for it; None starts from chance.

    Raises:
        ConfigError: it has no stages at these strides.
    """
    inner = smp_name(name)
    if name == "tiny":
        return _tiny()
    if inner is not None:
        return _smp(inner, smp.encoders.get_encoder(inner, weights=None), hub_weights)
    body = timm.create_model(timm_name(name), features_only=True, **_timm_options(name))
    wanted = [place for place, stride in enumerate(body.feature_info.reduction()) if stride in _PYRAMID]
    if len(wanted) != len(_PYRAMID):
        raise ConfigError(f"backbone {name!r} has stages at strides {body.feature_info.reduction()}, wanted 8, 16, 32")
    return _timm(name, hub_weights, out_indices=tuple(wanted))


def dense_body(name: str, hub_weights: Path | None = None) -> Body:
    """The encoder of that name, whose last five features are at strides 2, 4, 8, 16 and 16.

    The last stage of `tiny`, of ResNets and of segmentation-models-pytorch's own encoders loses its stride and is not
    dilated, as in IRNet; those of timm's other networks are dilated by timm.

    Args:
        hub_weights: the file that the hub has for it; None starts from chance.

    Raises:
        ConfigError: it cannot be had at these strides.
    """
    inner = smp_name(name)
    if name == "tiny":
        body = _tiny()
        last = body.module.stages[-1:]
    elif inner is not None and not inner.startswith("tu-"):
        body = _smp(inner, smp.encoders.get_encoder(inner, weights=None), hub_weights)
        last = body.module.get_stages()[32]
    elif name in _RESNETS:
        body = _timm(name, hub_weights)
        last = [body.module.layer4]
    else:
        return _dilated(name, inner, hub_weights)
    for stage in last:
        _take_stride(stage)
    return body


def _tiny() -> Body:
    module = TinyBody()
    return Body(module, module.channels, HALF, HALF)


def _smp(inner: str, module: Any, hub_weights: Path | None) -> Body:
    """The hub's weights take ImageNet's mean and deviation; of a file for mobilenet_v2 ours are x / 127.5 - 1."""
    if hub_weights is not None:
        load_weights(module, read_state_dict(hub_weights), where=str(hub_weights), partly=True)
    own = inner == "mobilenet_v2" and hub_weights is None
    mean, std = (HALF, HALF) if own else (IMAGENET_MEAN, IMAGENET_STD)
    return Body(module, tuple(module.out_channels), mean, std)


def _timm(name: str, hub_weights: Path | None, **options: Any) -> Body:
    """timm's own reading of the hub's file, which has a classifier's names."""
    file = {"pretrained": True, "pretrained_cfg_overlay": {"file": str(hub_weights)}} if hub_weights else {}
    module = timm.create_model(timm_name(name), features_only=True, **file, **options, **_timm_options(name))
    card = module.pretrained_cfg
    mean, std = tuple(card.get("mean", IMAGENET_MEAN)), tuple(card.get("std", IMAGENET_STD))
    return Body(module, tuple(module.feature_info.channels()), mean, std)


def _timm_options(name: str) -> dict[str, Any]:
    return {"strict_img_size": False} if timm_name(name).startswith("swin") else {}


def _dilated(name: str, inner: str | None, hub_weights: Path | None) -> Body:
    try:
        if inner is not None:
            module = smp.encoders.get_encoder(inner, weights=None, output_stride=16)
            body, strides = _smp(inner, module, hub_weights), list(module.model.feature_info.reduction())
        else:
            body = _timm(name, hub_weights, output_stride=16)
            strides = list(body.module.feature_info.reduction())
    except _NOT_DILATED as error:
        raise ConfigError(f"backbone {name!r} cannot be had at stride 16 ({error})") from None
    if strides[-5:] != _DENSE:
        raise ConfigError(f"backbone {name!r} has stages at strides {strides}, wanted {_DENSE}")
    return body


def _take_stride(stage: nn.Module) -> None:
    for module in stage.modules():
        if isinstance(module, nn.Conv2d) and module.stride == (2, 2):
            module.stride = (1, 1)
