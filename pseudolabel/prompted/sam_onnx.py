"""An encoder and a decoder of the SAM family as two ONNX files; `signatures.py` knows the kinds of export."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float32, Shaped, UInt8

from pseudolabel.errors import ConfigError, InputError
from pseudolabel.prompted.asking import BoxPrompted, Decoded
from pseudolabel.prompted.base import PromptedOptions, shape_text
from pseudolabel.prompted.card import PairCard, read_card
from pseudolabel.prompted.frame import resized_hw
from pseudolabel.prompted.masks import stability
from pseudolabel.prompted.onnx_pair import card_of, pair_of, processor_of
from pseudolabel.prompted.onnx_session import OnnxGraph
from pseudolabel.prompted.signatures import Boxes, Signature, Triple, feed, is_fed, signature_of
from pseudolabel.segmenters.card import InputCard
from pseudolabel.segmenters.preprocess import prepare

_USUAL_PX = 1024  # of an encoder that takes any size, where no card says it


@dataclass(frozen=True, slots=True)
class PixelRule:
    """How pixels enter the encoder."""

    mean: Triple
    std: Triple
    size: int
    as_bytes: bool = False  # height x width x 3 in 0 to 255, prepared inside


def open_sam_onnx(where: str, options: PromptedOptions) -> BoxPrompted:
    """The pair of a folder.

    Raises:
        ConfigError: nobody says how its input is normalised.
        InputError: no pair, a decoder of no known kind, or an encoder that does not belong to it.
    """
    folder = Path(where)
    encoder_path, decoder_path = pair_of(folder)
    encoder = OnnxGraph(encoder_path, device=options.device, threads=options.threads)
    decoder = OnnxGraph(decoder_path, device=options.device, threads=options.threads)
    said = card_of(folder, options.card)
    card = read_card(said, PairCard) if said else PairCard()
    signature = signature_of(frozenset(port.name for port in decoder.inputs), decoder_path)
    rule = pixel_rule(folder, encoder, card, signature)
    return BoxPrompted(OnnxPair(encoder, decoder, signature, rule, card, options.masks == "all"), options)


class OnnxPair:
    """See `pseudolabel.prompted.asking.Network`."""

    def __init__(
        self,
        encoder: OnnxGraph,
        decoder: OnnxGraph,
        signature: Signature,
        rule: PixelRule,
        card: PairCard,
        several: bool,
    ) -> None:
        self.name, self.fit, self.input_px = str(decoder.path.parent), signature.fit, rule.size
        self._encoder, self._decoder, self._signature, self._rule = encoder, decoder, signature, rule
        self._stability, self._several = (card.scores or signature.score_rule) == "stability", several
        self._features = tuple(port.name for port in decoder.inputs if not is_fed(port.name))
        _check_names(encoder, decoder, signature, self._features)

    def encode(self, pixels: UInt8[np.ndarray, "h w 3"]) -> Any:
        batch = prepared(pixels, self._rule, self._signature)
        return self._encoder.keep({self._encoder.inputs[0].name: batch}, self._features)

    def decode(self, embedding: Any, boxes_xyxy: Boxes) -> Decoded:
        if not self._signature.one_box:
            return self._asked(embedding, boxes_xyxy)
        found = [self._asked(embedding, boxes_xyxy[place : place + 1]) for place in range(len(boxes_xyxy))]
        return Decoded(np.concatenate([one.logits for one in found]), np.concatenate([one.scores for one in found]))

    def _asked(self, embedding: Any, boxes_xyxy: Boxes) -> Decoded:
        side = self._signature.said_in_px or self.input_px
        told = boxes_xyxy * np.float32(side / self.input_px)
        cells = min(value.shape()[-1] for value in embedding.values())
        ports = [port for port in self._decoder.inputs if port.name not in embedding]
        feeds = embedding | {port.name: feed(port, told, side, cells) for port in ports}
        output = self._decoder.run(feeds, [self._signature.masks, self._signature.scores])
        logits, scores = _in_four(output[self._signature.masks]), _in_two(output[self._signature.scores])
        if self._stability:
            scores = np.array([[stability(mask) for mask in masks] for masks in logits], dtype=np.float32)
        return _chosen(logits, scores, several=self._several)


def pixel_rule(folder: Path, encoder: OnnxGraph, card: PairCard, signature: Signature) -> PixelRule:
    """Card, else transformers' processor beside the models, else what all models of the kind have.

    Raises:
        ConfigError: nobody says it.
        InputError: an encoder of other inputs.
    """
    shape = _input_shape(encoder)
    mean, std = _said_by(processor_of(folder))
    mean, std = card.input.mean or mean or signature.mean, card.input.std or std or signature.std
    if mean is None or std is None:
        raise ConfigError(
            f"{folder}: {signature.name} exports differ in how pixels are normalised; copy the model's "
            "preprocessor_config.json there, or write a card, as  card.yaml:  "
            "input: {mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225]}"
        )
    sides = set(shape[2:]) if len(shape) == 4 else set(shape[:2])
    fixed = next(iter(sides)) if len(sides) == 1 else None
    if fixed and card.input.size not in (None, fixed):
        raise ConfigError(f"{folder}: its card says size {card.input.size}, the encoder takes {fixed} px alone")
    return PixelRule(mean, std, fixed or card.input.size or _USUAL_PX, as_bytes=len(shape) == 3)


def prepared(
    pixels: UInt8[np.ndarray, "h w 3"], rule: PixelRule, signature: Signature
) -> Float32[np.ndarray, "*batch a b c"]:
    """The encoder's input: resized, normalised, and on the right and below padded with zeros, as the kind wants it."""
    size_hw = resized_hw((pixels.shape[0], pixels.shape[1]), rule.size, signature.fit)
    if rule.as_bytes:
        same = InputCard(mean=(0.0, 0.0, 0.0), std=(1 / 255, 1 / 255, 1 / 255), size=size_hw)
        return prepare(pixels, size_hw, same).permute(1, 2, 0).contiguous().numpy()
    planes = prepare(pixels, size_hw, InputCard(mean=rule.mean, std=rule.std, size=size_hw))
    padded: torch.Tensor = F.pad(planes, (0, rule.size - size_hw[1], 0, rule.size - size_hw[0]))
    return padded[None].numpy()


def _input_shape(encoder: OnnxGraph) -> tuple[int | None, ...]:
    shapes = [port.shape for port in encoder.inputs]
    sound = len(shapes) == 1 and (
        (len(shapes[0]) == 4 and shapes[0][1] in (3, None)) or (len(shapes[0]) == 3 and shapes[0][2] in (3, None))
    )
    if not sound:
        raise InputError(
            f"{encoder.path}: expected one input (1, 3, side, side) or (height, width, 3), got {shape_text(shapes)}"
        )
    return shapes[0]


def _said_by(processor: Path | None) -> tuple[Triple | None, Triple | None]:
    if processor is None:
        return None, None
    try:
        content = json.loads(processor.read_text(encoding="utf-8"))
        mean, std = (tuple(float(value) for value in content[key]) for key in ("image_mean", "image_std"))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{processor}: no image_mean and image_std to be read ({error})") from None
    if len(mean) != 3 or len(std) != 3:
        raise InputError(f"{processor}: image_mean and image_std have {len(mean)} and {len(std)} numbers, not 3")
    return (mean[0], mean[1], mean[2]), (std[0], std[1], std[2])


def _check_names(encoder: OnnxGraph, decoder: OnnxGraph, signature: Signature, features: tuple[str, ...]) -> None:
    unknown = [name for name in features if name not in encoder.outputs]
    if unknown:
        raise InputError(
            f"{decoder.path} wants {', '.join(unknown)}, which {encoder.path.name} does not give "
            f"(it gives {', '.join(encoder.outputs)}); do they belong together?"
        )
    absent = [name for name in (signature.masks, signature.scores) if name not in decoder.outputs]
    if absent:
        raise InputError(
            f"{decoder.path}: a decoder of {signature.name} gives {', '.join(absent)}, this one "
            f"{', '.join(decoder.outputs)}"
        )


def _in_four(masks: Shaped[np.ndarray, "..."]) -> Float32[np.ndarray, "n m h w"]:
    """Masks without the axis of images."""
    if masks.ndim == 5 and masks.shape[0] == 1:
        masks = masks[0]
    if masks.ndim != 4:
        raise InputError(f"expected masks (boxes, m, height, width), got {masks.shape}")
    return masks.astype(np.float32)


def _in_two(scores: Shaped[np.ndarray, "..."]) -> Float32[np.ndarray, "n m"]:
    if scores.ndim == 3 and scores.shape[0] == 1:
        scores = scores[0]
    if scores.ndim != 2:
        raise InputError(f"expected scores (boxes, m), got {scores.shape}")
    return scores.astype(np.float32)


def _chosen(logits: Float32[np.ndarray, "n m h w"], scores: Float32[np.ndarray, "n m"], *, several: bool) -> Decoded:
    """One mask per box, or all that are alternatives: of four, the first is for prompts that leave no doubt."""
    if logits.shape[1] == 4:
        logits, scores = (logits[:, 1:], scores[:, 1:]) if several else (logits[:, :1], scores[:, :1])
    if several or logits.shape[1] == 1:
        return Decoded(logits, scores)
    best = scores.argmax(axis=1)[:, None]
    return Decoded(np.take_along_axis(logits, best[:, :, None, None], axis=1), np.take_along_axis(scores, best, axis=1))
