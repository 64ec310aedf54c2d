"""The part that all neural segmenters share: prepare, run in batches of one fixed size, check, reduce."""

from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
import torch
from jaxtyping import Float32

from pseudolabel.errors import InputError, RejectError
from pseudolabel.masks import SoftMask
from pseudolabel.segmenters.base import IGNORE_INDEX, Photo, SemanticResult
from pseudolabel.segmenters.card import ModelCard
from pseudolabel.segmenters.preprocess import prepare
from pseudolabel.segmenters.reduce import reduce_logits
from pseudolabel.segmenters.zoom import Look, seen

Batch = Float32[torch.Tensor, "n 3 h w"]
Logits = Float32[torch.Tensor, "n c h2 w2"]
OneLogits = Float32[torch.Tensor, "c h2 w2"]


class Network(Protocol):
    """A loaded model."""

    def __call__(self, batch: Batch) -> Logits:
        """Logits of a batch on the host, left on the model's own device."""


class NetworkSegmenter:
    """A `Segmenter` over a network and its card.

    Photos that enter the network at one size go through it `batch_size` at a time; a batch that is not full repeats
    its last photo, so that the bits of a result never depend on how many photos stand beside it.
    """

    ignore_index = IGNORE_INDEX
    needs_pixels = True

    def __init__(self, network: Network, card: ModelCard, *, batch_size: int = 1, long_side: int | None = None) -> None:
        self.classes = card.classes
        self.batch_size = batch_size
        self._network = network
        self._card = card
        self._long_side = long_side

    def probe(self) -> None:
        size_hw = self._card.network_size((480, 640), self._long_side)
        ramp = torch.linspace(-1, 1, size_hw[1]).expand(self.batch_size, 3, *size_hw).contiguous()
        logits = self._network(ramp)
        wanted = (self.batch_size, len(self.classes))
        if logits.ndim != 4 or logits.shape[:2] != wanted:
            raise InputError(
                f"{self._card.name}: expected logits of shape ({wanted[0]}, {wanted[1]} classes, height, width), "
                f"got {tuple(logits.shape)}"
            )
        if not torch.isfinite(logits).all():
            raise InputError(f"{self._card.name}: non-finite logits on a probe batch of shape {tuple(ramp.shape)}")

    def predict(self, photos: Sequence[Photo]) -> list[SemanticResult | RejectError]:
        sizes = [self._card.network_size(photo.size_hw, self._long_side) for photo in photos]
        align = self._card.output.align_corners
        found = {
            place: logits
            if isinstance(logits, RejectError)
            else reduce_logits(logits, photos[place].size_hw, align_corners=align)
            for place, logits in self._logits(photos, sizes)
        }
        return [found[place] for place in range(len(photos))]

    def look(self, looks: Sequence[Look]) -> list[SoftMask | RejectError]:
        """The probability of each look's class on its cells; a `RejectError` where one look alone failed."""
        crops = [look.closer() for look in looks]
        sizes = [self._closer_size(look) for look in looks]
        align = self._card.output.align_corners
        found = {
            place: logits if isinstance(logits, RejectError) else seen(logits, looks[place], align_corners=align)
            for place, logits in self._logits(crops, sizes)
        }
        return [found[place] for place in range(len(looks))]

    def _closer_size(self, look: Look) -> tuple[int, int]:
        """As large as the whole image enters: the card's fixed size, or the image's longer side for the crop's."""
        if self._card.input.size is not None and self._long_side is None:
            return self._card.input.size
        whole = max(self._card.network_size(look.photo.size_hw, self._long_side))
        return self._card.network_size(look.size_hw, whole)

    def _logits(
        self, photos: Sequence[Photo], sizes: Sequence[tuple[int, int]]
    ) -> Iterator[tuple[int, OneLogits | RejectError]]:
        """Place and logits of every photo, those of one input size together."""
        for size_hw in dict.fromkeys(sizes):
            chosen = [index for index, size in enumerate(sizes) if size == size_hw]
            for first in range(0, len(chosen), self.batch_size):
                batch = chosen[first : first + self.batch_size]
                yield from zip(batch, self._run([photos[i] for i in batch], size_hw), strict=True)

    def _run(self, photos: list[Photo], size_hw: tuple[int, int]) -> list[OneLogits | RejectError]:
        prepared = [prepare(_pixels(photo), size_hw, self._card.input) for photo in photos]
        prepared += prepared[-1:] * (self.batch_size - len(prepared))
        logits = self._network(torch.stack(prepared))
        finite = torch.isfinite(logits).flatten(1).all(dim=1).tolist()
        return [
            one if sound else RejectError("non_finite", f"{self._card.name} gave NaN or infinite logits")
            for _, one, sound in zip(photos, logits, finite, strict=False)  # the padding has no photo
        ]


def _pixels(photo: Photo) -> np.ndarray:
    if photo.rgb is None or photo.rgb.shape != (*photo.size_hw, 3):
        found = None if photo.rgb is None else photo.rgb.shape
        raise ValueError(f"{photo.file_name}: expected pixels of shape {(*photo.size_hw, 3)}, got {found}")
    return photo.rgb
