"""Image features at strides 8 to 128: an encoder by name, and a feature pyramid above it.

Encoders come from timm (`resnet50`, `resnet101`, `swin_tiny`, any timm name with stages at strides 8, 16 and 32), from
segmentation-models-pytorch (`mobilenet_v2`, which takes torchvision's parameter names), or are the small network of
this file (`tiny`), for sets of drawn or microscopic scenes where no pretrained weights are at hand.
"""

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from math import gcd
from pathlib import Path

import timm
import torch
from huggingface_hub.errors import LocalEntryNotFoundError
from jaxtyping import Float
from safetensors.torch import load_file
from timm.models._features import FeatureListNet
from torch import Tensor, nn
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from pseudolabel.encoders.from_onnx import load_segmenter_encoder
from pseudolabel.errors import ConfigError, InputError
from pseudolabel.registry import did_you_mean

STRIDES = (8, 16, 32, 64, 128)
SIDE = 32  # of the smallest image that an encoder takes
EARLY = 4  # stride up to which `freeze_early` keeps an encoder as it is
TIMM_NAMES = {"swin_tiny": "swin_tiny_patch4_window7_224"}
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
HALF = (0.5, 0.5, 0.5)
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.SyncBatchNorm)


class Encoder(nn.Module):
    """C3, C4, C5 of an encoder that normalises its own input; pretrained BatchNorm stays as it was trained.

    Mean and standard deviation are of pixels from 0 to 255 and are saved with the weights, to which they belong.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, body: nn.Module, channels: tuple[int, ...], mean: tuple[float, ...], std: tuple[float, ...]
    ) -> None:
        super().__init__()
        self.body = body
        self.channels = channels
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1) * 255)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1) * 255)
        for module in self.modules():
            if isinstance(module, BATCH_NORMS):
                module.requires_grad_(False)

    def train(self, mode: bool = True) -> "Encoder":
        """Training mode for all but BatchNorm, whose statistics are never touched."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, BATCH_NORMS):
                module.eval()
        return self

    def forward(self, images: Float[Tensor, "b 3 H W"]) -> list[Float[Tensor, "b c h w"]]:
        features = self.body((images.float() - self.mean) / self.std)[-3:]
        return [
            feature if feature.shape[1] == width else feature.permute(0, 3, 1, 2).contiguous()
            for feature, width in zip(features, self.channels, strict=True)
        ]


class TinyBody(nn.Module):
    """Five stages of 3x3 convolutions with GroupNorm, trained from scratch."""

    def __init__(self, channels: tuple[int, ...] = (16, 32, 48, 64, 64)) -> None:
        super().__init__()
        widths = zip((3, *channels), channels, strict=False)
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


def build_encoder(name: str, weights: str) -> Encoder:
    """The encoder of that name with its weights.

    Args:
        weights: a file (.safetensors, .pt read without code, or a segmenter's .onnx over the same backbone, its card
            beside it; what that lacks of the encoder's last layers starts from chance), `hub` for the encoder's own
            ImageNet weights out of the hub's cache or, where that lacks them, from the hub; or `none` to start from
            chance.

    Raises:
        ConfigError: no such encoder, or one without stages at strides 8, 16 and 32, or `hub` for `tiny`.
        InputError: the file lacks parameters, has others, or cannot be read; or the hub cannot be had.
    """
    if name == "tiny":
        if weights == "hub":
            raise ConfigError("backbone 'tiny' has no weights on the hub: give a file, or say 'none' to train it all")
        encoder = Encoder(TinyBody(), (48, 64, 64), HALF, HALF)
    else:
        build = _mobilenet if name == "mobilenet_v2" else partial(_timm_encoder, name)
        with _hub_says_why(name):
            encoder = build(pretrained=weights == "hub")
    if weights.endswith(".onnx"):
        load_segmenter_encoder(encoder, Path(weights))
    elif weights not in ("hub", "none"):
        load_encoder_weights(encoder, Path(weights))
    return encoder


@contextmanager
def _hub_says_why(name: str) -> Iterator[None]:
    """An InputError that says what to type, where the hub has no weights for us."""
    try:
        yield
    except (OSError, LocalEntryNotFoundError) as error:
        raise InputError(
            f"backbone {name!r}: its weights are not in the hub's cache and cannot be fetched "
            f"({str(error).splitlines()[0][:160]}); give a file with --backbone-weights FILE, or say "
            "--backbone-weights none to start from chance"
        ) from error


def _mobilenet(*, pretrained: bool) -> Encoder:
    """The hub's weights take ImageNet's mean and deviation; of a file in torchvision's names ours are x / 127.5 - 1."""
    import segmentation_models_pytorch as smp

    body = smp.encoders.get_encoder("mobilenet_v2", weights="imagenet" if pretrained else None)
    mean, std = (IMAGENET_MEAN, IMAGENET_STD) if pretrained else (HALF, HALF)
    return Encoder(body, tuple(body.out_channels[-3:]), mean, std)


def _timm_encoder(name: str, *, pretrained: bool) -> Encoder:
    full_name = TIMM_NAMES.get(name, name)
    if not timm.is_model(full_name):
        near = did_you_mean(name, ["tiny", "mobilenet_v2", *TIMM_NAMES, *timm.list_models()])
        raise ConfigError(f"no backbone called {name!r}{near}")
    options = {"strict_img_size": False} if full_name.startswith("swin") else {}
    body = timm.create_model(full_name, features_only=True, pretrained=pretrained, **options)
    wanted = [index for index, stride in enumerate(body.feature_info.reduction()) if stride in STRIDES[:3]]
    if len(wanted) != 3:
        raise ConfigError(f"backbone {name!r} has stages at strides {body.feature_info.reduction()}, wanted 8, 16, 32")
    body = timm.create_model(full_name, features_only=True, pretrained=pretrained, out_indices=tuple(wanted), **options)
    card = body.pretrained_cfg
    mean, std = tuple(card.get("mean", IMAGENET_MEAN)), tuple(card.get("std", IMAGENET_STD))
    return Encoder(body, tuple(body.feature_info.channels()), mean, std)


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


def load_encoder_weights(encoder: Encoder, path: Path) -> None:
    """Read a classifier's weights into the encoder; its classification layers are left out.

    Raises:
        InputError: the file cannot be read, or does not hold exactly the encoder's parameters.
    """
    state = {key: value.float() if value.is_floating_point() else value for key, value in read_weights(path).items()}
    own = encoder.body.state_dict()
    missing = sorted(own.keys() - state.keys())
    wrong = sorted(key for key in own.keys() & state.keys() if own[key].shape != state[key].shape)
    if missing or wrong:
        found = f"{len(missing)} of {len(own)} parameters are missing, {len(wrong)} have another shape"
        raise InputError(f"{path}: {found} (first: {(missing + wrong)[0]}); these are weights of another network")
    encoder.body.load_state_dict({key: state[key] for key in own})


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a .safetensors or .pt file.

    Raises:
        InputError: no such file, or no such content.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such weights file")
    try:
        if path.suffix == ".safetensors":
            return dict(load_file(path))
        return dict(torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:
        raise InputError(f"{path}: not a readable weights file ({type(error).__name__})") from error


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
