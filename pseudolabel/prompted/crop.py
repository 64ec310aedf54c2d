"""Class-agnostic models on the crop around a box: they know nothing of boxes, but the object is what is in the middle.

Such a model speaks for some objects only. How sure its own probabilities are, times how well the tight box of the uncut
mask meets the given one, tells which: `least_score` is the gate.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Float32, UInt8

from pseudolabel.errors import ConfigError, InputError
from pseudolabel.masks import Grid
from pseudolabel.prompted.base import BoxXyxy, PromptedMask, PromptedOptions, Prompts, made_up_prompts, shape_text
from pseudolabel.prompted.card import CropCard, crop_card_path, read_card
from pseudolabel.prompted.frame import Window, window_around
from pseudolabel.prompted.masks import Answer, expected_iou, prompted_mask
from pseudolabel.prompted.onnx_session import OnnxGraph
from pseudolabel.segmenters.preprocess import prepare

_SLACK = 1e-3  # beyond [0, 1] in what calls itself a probability


class CropModel:
    """A `Prompted` over an ONNX file that finds the one object of a picture."""

    def __init__(self, graph: OnnxGraph, card: CropCard, options: PromptedOptions) -> None:
        self._graph, self._card, self._options = graph, card, options
        self._output = card.output.name or graph.outputs[0]
        if self._output not in graph.outputs:
            raise ConfigError(f"{graph.path}: no output {self._output!r} (there: {', '.join(graph.outputs)})")

    def probe(self) -> None:
        self._values(made_up_prompts().pixels)

    def predict(self, prompts: Prompts) -> list[PromptedMask]:
        size_hw = (prompts.pixels.shape[0], prompts.pixels.shape[1])
        return [
            mask
            for given, box in enumerate(prompts.boxes_xyxy.tolist())
            for answer in self._answers(prompts.pixels, tuple(box))
            if (mask := prompted_mask(answer, given, tuple(box), size_hw, by_box=True)) is not None
            and mask.box_score >= self._options.least_score
        ]

    def _answers(self, pixels: UInt8[np.ndarray, "h w 3"], box_xyxy: BoxXyxy) -> Iterator[Answer]:
        for room in self._options.rooms:
            window = window_around(box_xyxy, (pixels.shape[0], pixels.shape[1]), room)
            left, top, right, bottom = window
            values = self._values(pixels[top:bottom, left:right])
            logits = self._card.output.kind == "logits"
            score = expected_iou(1 / (1 + np.exp(-np.clip(values, -30, 30))) if logits else values)
            yield Answer(values, _grid(window, values), window, "logit" if logits else "probability", score)

    def _values(self, pixels: UInt8[np.ndarray, "h w 3"]) -> Float32[np.ndarray, "h w"]:
        batch = prepare(np.ascontiguousarray(pixels), self._card.input.size or (0, 0), self._card.input)[None].numpy()
        output = self._graph.run({self._graph.inputs[0].name: batch}, [self._output])[self._output]
        cells = output.squeeze()
        if cells.ndim != 2 or output.dtype != np.float32:
            raise InputError(f"{self._graph.path}: expected {self._output} as one float32 mask, got {output.shape}")
        if self._card.output.kind == "probability" and (cells.min() < -_SLACK or cells.max() > 1 + _SLACK):
            raise InputError(
                f"{self._graph.path}: {self._output} lies in [{cells.min():.3g}, {cells.max():.3g}], no probability; "
                "does the card mean  kind: logits?"
            )
        return cells


def open_crop(where: str, options: PromptedOptions) -> CropModel:
    """The model of an ONNX file and its card.

    Raises:
        ConfigError: no card, none with a size, or one that does not fit the file.
        InputError: no such file, or a model of other inputs.
    """
    path = Path(where)
    card_path = crop_card_path(path, options.card)
    card = read_card(card_path, CropCard)
    graph = OnnxGraph(path, device=options.device, threads=options.threads)
    shape = graph.inputs[0].shape
    if len(graph.inputs) != 1 or len(shape) != 4 or shape[1] not in (3, None):
        raise InputError(
            f"{path}: expected one input (1, 3, height, width), got {shape_text([one.shape for one in graph.inputs])}"
        )
    if card.input.size is None:
        raise ConfigError(f"{card_path}: input.size is required: at which height and width crops enter")
    for said, fixed in zip(card.input.size, shape[2:], strict=True):
        if fixed not in (said, None):
            raise ConfigError(f"{card_path}: input.size is {list(card.input.size)}, the model takes {shape[2:]} alone")
    return CropModel(graph, card, options)


def _grid(window: Window, values: Float32[np.ndarray, "h w"]) -> Grid:
    left, top, right, bottom = window
    height, width = values.shape
    return Grid(float(left), float(top), (right - left) / width, (bottom - top) / height, height, width)
