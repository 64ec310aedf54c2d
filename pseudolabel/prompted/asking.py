"""How a model of the SAM family is asked about the boxes of an image: one embedding, then the decoder box by box.

Boxes enter the decoder in chunks of one fixed size, the last one filled up by repeating its first box, so that every
forward pass has the same shape whatever else is asked. A small box is asked about on an enlarged part of the image,
with an embedding of its own.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from jaxtyping import Float32, Float64, UInt8

from pseudolabel.errors import InputError
from pseudolabel.prompted.base import PromptedMask, PromptedOptions, Prompts, made_up_prompts
from pseudolabel.prompted.frame import Fit, Frame, Window, frame_of, window_around
from pseudolabel.prompted.masks import Answer, prompted_mask
from pseudolabel.prompted.views import views_of

CLOSER_ROOM = 1.5  # a small box is shown in a square of four times its longer side,
CLOSER_PX = 128  # but of no fewer pixels: fewer show nothing, however large they are made


@dataclass(frozen=True, slots=True)
class Decoded:
    """What a decoder says for n boxes, each with m masks on a grid over the whole input."""

    logits: Float32[np.ndarray, "n m h w"]
    scores: Float32[np.ndarray, "n m"]


class Network(Protocol):
    """An encoder and a decoder that hears boxes."""

    name: str  # for messages
    input_px: int
    fit: Fit

    def encode(self, pixels: UInt8[np.ndarray, "h w 3"]) -> Any:
        """The embedding of an image, as `decode` takes it."""

    def decode(self, embedding: Any, boxes_xyxy: Float32[np.ndarray, "n 4"]) -> Decoded:
        """The masks for boxes in pixels of the input."""


class BoxPrompted:
    """A `Prompted` over an encoder and a decoder."""

    def __init__(self, network: Network, options: PromptedOptions) -> None:
        self._network, self._options = network, options

    def probe(self) -> None:
        prompts = made_up_prompts()
        size_hw = (prompts.pixels.shape[0], prompts.pixels.shape[1])
        frame = frame_of((0, 0, size_hw[1], size_hw[0]), self._network.input_px, self._network.fit)
        decoded = self._decode(self._network.encode(prompts.pixels), frame.prompts(prompts.boxes_xyxy))
        logits, name = decoded.logits, self._network.name
        if logits.ndim != 4 or len(logits) != 2 or decoded.scores.shape != logits.shape[:2] or min(logits.shape) < 1:
            raise InputError(
                f"{name}: for 2 boxes expected masks (2, m, height, width) and scores (2, m), "
                f"got {logits.shape} and {decoded.scores.shape}"
            )
        if not (np.isfinite(logits).all() and np.isfinite(decoded.scores).all()):
            raise InputError(f"{name}: masks or scores of a made-up image are not finite; are the weights damaged?")
        if np.array_equal(logits[0], logits[1]):
            raise InputError(f"{name}: two boxes get the same mask to the last bit; this model does not hear boxes")

    def predict(self, prompts: Prompts) -> list[PromptedMask]:
        size_hw = (prompts.pixels.shape[0], prompts.pixels.shape[1])
        found: list[PromptedMask] = []
        for window, places in _windows(prompts, self._options.closer_px).items():
            left, top, right, bottom = window
            embedding = self._network.encode(np.ascontiguousarray(prompts.pixels[top:bottom, left:right]))
            frame = frame_of(window, self._network.input_px, self._network.fit)
            found += self._masks(embedding, frame, prompts.boxes_xyxy, places, size_hw)
        return sorted(found, key=lambda one: one.given)

    def _masks(
        self,
        embedding: Any,
        frame: Frame,
        boxes_xyxy: Float64[np.ndarray, "n 4"],
        places: Sequence[int],
        size_hw: tuple[int, int],
    ) -> Iterator[PromptedMask]:
        views = views_of(boxes_xyxy[list(places)], self._options.views, size_hw)
        asked = frame.prompts(views.reshape(-1, 4))
        owners = np.repeat(places, self._options.views).tolist()
        for first in range(0, len(asked), self._options.boxes_at_once):
            chunk = slice(first, first + self._options.boxes_at_once)
            decoded = self._decode(embedding, asked[chunk])
            grid = frame.grid((decoded.logits.shape[2], decoded.logits.shape[3]))
            for given, masks, scores in zip(owners[chunk], decoded.logits, decoded.scores, strict=True):
                box = tuple(boxes_xyxy[given].tolist())
                for logits, score in zip(masks, scores.tolist(), strict=True):
                    mask = prompted_mask(Answer(logits, grid, frame.window, "logit", score), given, box, size_hw)
                    if mask is not None and mask.box_score >= self._options.least_score:
                        yield mask

    def _decode(self, embedding: Any, boxes_xyxy: Float64[np.ndarray, "n 4"]) -> Decoded:
        """At most a chunk of boxes, in a forward pass of a whole one."""
        filled = np.concatenate([boxes_xyxy, np.repeat(boxes_xyxy[:1], self._options.boxes_at_once, axis=0)])
        size = max(self._options.boxes_at_once, len(boxes_xyxy))
        decoded = self._network.decode(embedding, filled[:size].astype(np.float32))
        return Decoded(decoded.logits[: len(boxes_xyxy)], decoded.scores[: len(boxes_xyxy)])


def _windows(prompts: Prompts, closer_px: int) -> dict[Window, list[int]]:
    """Which boxes are asked about on which part of the image; the whole of it first."""
    height, width = prompts.pixels.shape[:2]
    windows: dict[Window, list[int]] = {(0, 0, width, height): []}
    for place, box in enumerate(prompts.boxes_xyxy.tolist()):
        window = (0, 0, width, height)
        if max(box[2] - box[0], box[3] - box[1]) < closer_px:
            window = window_around(box, (height, width), CLOSER_ROOM, CLOSER_PX)
        windows.setdefault(window, []).append(place)
    return {window: places for window, places in windows.items() if places}
