"""An encoder's weights out of a segmenter's ONNX graph, whose backbone is the same network.

A graph has no module names that could be relied on, but it is sorted: its convolutions stand in the order in which they
run. They are matched with the encoder's, in the order in which those run. A BatchNorm that the exporter has folded into
its convolution leaves a bias; the encoder's own then only adds that. What the segmenter lacks at the end, such as a
classifier's last convolution, stays as it is.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm

from pseudolabel.encoders.encoder import Encoder
from pseudolabel.errors import InputError
from pseudolabel.segmenters.base import SegmenterOptions
from pseudolabel.segmenters.card import find_card

if TYPE_CHECKING:
    import onnx

LEAST_SHARE = 0.9  # of an encoder's convolutions that must be found
_SIDE = 64


@dataclass(frozen=True, slots=True)
class Norm:
    """y = (x - mean) / sqrt(var + eps) * scale + bias."""

    scale: Float[np.ndarray, "c"]
    bias: Float[np.ndarray, "c"]
    mean: Float[np.ndarray, "c"]
    var: Float[np.ndarray, "c"]


@dataclass(frozen=True, slots=True)
class Convolution:
    """A convolution of a graph with the BatchNorm behind it."""

    weight: Float[np.ndarray, "o i k l"]
    bias: Float[np.ndarray, "o"] | None
    norm: Norm | None


def load_segmenter_encoder(encoder: Encoder, path: Path) -> int:
    """Fill an encoder from the segmenter `path` and let it see colours as the model card beside that file says.

    Returns:
        How many convolutions were filled.

    Raises:
        InputError: as `load_onnx_encoder`, or there is no readable card.
    """
    card = find_card(path, SegmenterOptions()).input
    filled = load_onnx_encoder(encoder.body, path)
    if card.color == "bgr":
        with torch.no_grad():
            first = _in_running_order(encoder.body)[0][0]
            first.weight.copy_(first.weight.flip(1))
    step = -1 if card.color == "bgr" else 1
    encoder.normalise_by(card.mean[::step], card.std[::step])
    return filled


def load_onnx_encoder(body: nn.Module, path: Path) -> int:
    """Fill an encoder with the weights of the convolutions at the start of an ONNX graph, in place.

    Returns:
        How many convolutions were filled.

    Raises:
        InputError: the file cannot be read, or its graph does not begin with this encoder.
    """
    found, own = _convolutions(path), _in_running_order(body)
    filled = 0
    for (conv, norm), one in zip(own, found, strict=False):
        if tuple(conv.weight.shape) != one.weight.shape:
            break
        _fill(conv, norm, one, path)
        filled += 1
    if filled < LEAST_SHARE * len(own):
        conv, shape = own[filled][0], found[filled].weight.shape if filled < len(found) else "none"
        raise InputError(
            f"{path}: its convolution {filled + 1} has shape {shape}, the backbone's has {tuple(conv.weight.shape)}; "
            "this segmenter has another backbone"
        )
    return filled


def _convolutions(path: Path) -> list[Convolution]:
    import onnx
    from onnx import numpy_helper

    try:
        graph = onnx.load(str(path)).graph
    except Exception as error:
        raise InputError(f"{path}: not a readable ONNX file ({type(error).__name__})") from error
    tensors = {one.name: one for one in graph.initializer}
    norms = {node.input[0]: node for node in graph.node if node.op_type == "BatchNormalization"}

    def values(name: str) -> np.ndarray:
        if name not in tensors:
            raise InputError(f"{path}: {name!r} is computed, not stored, as in quantised graphs; give one with weights")
        stored: np.ndarray = numpy_helper.to_array(tensors[name]).astype(np.float32)
        return stored

    def one(node: "onnx.NodeProto") -> Convolution:
        norm = norms.get(node.output[0])
        return Convolution(
            values(node.input[1]),
            values(node.input[2]) if len(node.input) > 2 else None,
            None if norm is None else Norm(*(values(name) for name in norm.input[1:5])),
        )

    return [one(node) for node in graph.node if node.op_type == "Conv"]


def _in_running_order(body: nn.Module) -> list[tuple[nn.Conv2d, BatchNorm | None]]:
    """The convolutions, each with its BatchNorm, as a forward pass meets them."""
    met: list[nn.Module] = []
    watched = [one for one in body.modules() if isinstance(one, nn.Conv2d | BatchNorm)]
    hooks = [one.register_forward_hook(lambda module, _, __: met.append(module)) for one in watched]
    was_training = body.training
    try:
        with torch.no_grad():
            body.eval()(torch.zeros(1, 3, _SIDE, _SIDE))
    finally:
        body.train(was_training)
        for hook in hooks:
            hook.remove()
    return list(_paired(met))


def _paired(met: list[nn.Module]) -> Iterator[tuple[nn.Conv2d, BatchNorm | None]]:
    for module, behind in zip(met, [*met[1:], None], strict=True):
        if isinstance(module, nn.Conv2d):
            yield module, behind if isinstance(behind, BatchNorm) else None


@torch.no_grad()
def _fill(conv: nn.Conv2d, norm: BatchNorm | None, one: Convolution, path: Path) -> None:
    conv.weight.copy_(torch.from_numpy(one.weight))
    bias = torch.zeros(len(one.weight)) if one.bias is None else torch.from_numpy(one.bias)
    if conv.bias is not None:
        conv.bias.copy_(bias)
        bias = torch.zeros_like(bias)
    if norm is None:
        if one.norm is not None or (conv.bias is None and bias.any()):
            raise InputError(f"{path}: a convolution of its has a bias or a BatchNorm that the backbone's has not")
        return
    given = one.norm
    if given is None:  # folded: the encoder's own only adds what is left
        ones = torch.ones_like(bias)
        state = {"weight": ones, "bias": bias, "running_mean": 0 * bias, "running_var": ones - norm.eps}
    else:
        state = {
            "weight": torch.from_numpy(given.scale),
            "bias": torch.from_numpy(given.bias),
            "running_mean": torch.from_numpy(given.mean) - bias,
            "running_var": torch.from_numpy(given.var),
        }
    norm.load_state_dict(state, strict=False)
