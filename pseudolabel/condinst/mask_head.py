"""The dynamic mask head: three 1x1 convolutions whose weights each instance brings along.

Relative coordinates are affine in the cell's position, so that the first layer of all instances of an image is one
matrix product with [features; x; y; 1]; the features are never copied per instance.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

FEATURE_STRIDE = 8
CPU_CHUNK = 4  # instances whose activations stay in a core's cache
_MAPS_AT_ONCE = 8  # that stay there while they are doubled


@dataclass(frozen=True, slots=True)
class HeadShape:
    """Widths of the head: `inputs` feature channels (without the two coordinates), `channels` inside."""

    inputs: int = 16
    channels: int = 8

    @property
    def weights(self) -> tuple[int, int, int]:
        """Weights of the three layers."""
        return (self.inputs + 2) * self.channels, self.channels * self.channels, self.channels

    @property
    def parameters(self) -> int:
        """Numbers per instance: all weights, then all biases."""
        return sum(self.weights) + 2 * self.channels + 1


def dynamic_masks(
    features: Float[Tensor, "b m h w"],
    parameters: Float[Tensor, "n p"],
    image_index: Int[Tensor, "n"],
    centres: Float[Tensor, "n 2"],
    sizes: Float[Tensor, "n"],
    shape: HeadShape,
) -> Float[Tensor, "n h w"]:
    """Mask logits at stride 8.

    Args:
        image_index: ascending.
        centres: (x, y) of the location that speaks for each instance, in pixels.
        sizes: the level's size of interest, which scales the coordinates.

    Source: CondInst (arXiv 2003.05664), section 3.1.
    """
    coordinates = _coordinates(features)
    counts = torch.bincount(image_index, minlength=features.shape[0]).tolist()
    layers = _affine_layers(parameters.float(), centres, sizes, shape)
    parts = [torch.split(layer, counts) for layer in layers]
    masks = [
        _masks_of_image(torch.cat([one.flatten(1).float(), coordinates]), tuple(part[i] for part in parts))
        for i, one in enumerate(features)
    ]
    return torch.cat(masks).view(-1, *features.shape[2:])


def _coordinates(features: Float[Tensor, "b m h w"]) -> Float[Tensor, "3 hw"]:
    """x and y in pixels of every cell, and 1."""
    h, w = features.shape[2:]
    y = torch.arange(h, device=features.device, dtype=torch.float32) * FEATURE_STRIDE + FEATURE_STRIDE // 2
    x = torch.arange(w, device=features.device, dtype=torch.float32) * FEATURE_STRIDE + FEATURE_STRIDE // 2
    return torch.stack([x.repeat(h), y.repeat_interleave(w), torch.ones(h * w, device=features.device)])


def _affine_layers(
    parameters: Float[Tensor, "n p"], centres: Float[Tensor, "n 2"], sizes: Float[Tensor, "n"], shape: HeadShape
) -> tuple[Tensor, ...]:
    """First layer for [features; x; y; 1], second weights, second biases, third weights, third biases.

    The coordinate channels are (centre - cell) / size, so their weights turn their sign and leave a constant behind.
    """
    n, c = parameters.shape[0], shape.channels
    first, second, third, biases = torch.split(parameters, [*shape.weights, 2 * c + 1], dim=1)
    first = first.view(n, c, shape.inputs + 2)
    by_place = first[:, :, -2:] / sizes[:, None, None]
    constant = biases[:, :c, None] + (by_place * centres[:, None]).sum(dim=2, keepdim=True)
    affine = torch.cat([first[:, :, :-2], -by_place, constant], dim=2)
    return affine, second.view(n, c, c), biases[:, c : 2 * c, None], third.view(n, 1, c), biases[:, 2 * c :, None]


def _masks_of_image(extended: Float[Tensor, "m3 hw"], layers: tuple[Tensor, ...]) -> Float[Tensor, "n hw"]:
    count = layers[0].shape[0]
    if count == 0:
        return extended.new_zeros(0, extended.shape[1])
    if _by_loops(extended):
        return _looped(extended, *layers)
    chunk = CPU_CHUNK if extended.device.type == "cpu" else count
    return torch.cat(
        [_three_layers(extended, *(layer[i : i + chunk] for layer in layers)) for i in range(0, count, chunk)]
    )


def _by_loops(x: Tensor) -> bool:
    """Whether nobody wants gradients or a graph of what happens to a tensor on the CPU."""
    plain = x.device.type == "cpu" and x.dtype == torch.float32 and not torch.is_grad_enabled()
    return plain and not torch.compiler.is_compiling()


def _looped(
    extended: Float[Tensor, "m3 hw"], affine: Tensor, second: Tensor, bias: Tensor, third: Tensor, last_bias: Tensor
) -> Float[Tensor, "n hw"]:
    from pseudolabel.condinst.mask_loops import head_masks  # numba, which training and export do without

    arrays = [part.contiguous().numpy() for part in (affine, second, bias[:, :, 0], third[:, 0], last_bias[:, 0, 0])]
    return torch.from_numpy(head_masks(extended.numpy(), *arrays))


def _three_layers(
    extended: Float[Tensor, "m3 hw"], affine: Tensor, second: Tensor, bias: Tensor, third: Tensor, last_bias: Tensor
) -> Float[Tensor, "n hw"]:
    n, c, width = affine.shape
    hidden = (affine.reshape(n * c, width) @ extended).view(n, c, -1).relu_()
    hidden = torch.baddbmm(bias, second, hidden).relu_()
    return torch.baddbmm(last_bias, third, hidden)[:, 0]


def aligned_upsample(x: Float[Tensor, "b c h w"], factor: int) -> Float[Tensor, "b c H W"]:
    """Output index u reads the input bilinearly at (u - factor // 2) / factor, clamped.

    Equal to padding by one at the right and bottom, resizing to factor * side + 1 with aligned corners, and padding
    the left and top by factor // 2. Source: CondInst's released code.
    """
    return _doubled(x) if factor == 2 and _by_loops(x) else _resized(x, factor)


def _resized(x: Float[Tensor, "b c h w"], factor: int) -> Float[Tensor, "b c H W"]:
    b, c, h, w = x.shape
    padded = F.pad(x.reshape(b * c, 1, h, w), (1, 1, 1, 1), mode="replicate")
    size = factor * (h + 1) + 1, factor * (w + 1) + 1
    first = factor - factor // 2
    resized = F.interpolate(padded, size, mode="bilinear", align_corners=True)
    return resized[:, 0, first : first + factor * h, first : first + factor * w].reshape(b, c, factor * h, factor * w)


def _doubled(x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c H W"]:
    """The same for a factor of two, without gradients: every other cell is the mean of its neighbours.

    Real and imaginary parts of a complex number lie side by side, which is the fastest way to interleave two arrays.
    """
    b, c, h, w = x.shape
    out = x.new_empty(b * c, h, 2, 2 * w)
    blocks = torch.split(x.reshape(b * c, h, w), _MAPS_AT_ONCE), torch.split(out, _MAPS_AT_ONCE)
    for maps, doubled in zip(*blocks, strict=True):
        before = torch.cat([maps[:, :, :1], maps[:, :, :-1]], dim=2)
        columns = torch.view_as_real(torch.complex(before.add_(maps).mul_(0.5), maps.contiguous())).flatten(2)
        doubled[:, :, 1] = columns
        halves = columns.mul_(0.5)
        torch.add(halves[:, :1], halves[:, :1], out=doubled[:, :1, 0])
        torch.add(halves[:, 1:], halves[:, :-1], out=doubled[:, 1:, 0])
    return out.view(b, c, 2 * h, 2 * w)


def upsample_masks(logits: Float[Tensor, "n h w"], factor: int = 2) -> Float[Tensor, "n H W"]:
    """Stride-8 logits on the stride-4 mask grid."""
    return aligned_upsample(logits[None], factor)[0]
