"""The part that all neural segmenters share: prepare, run in batches of one fixed size, check, reduce."""

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from jaxtyping import Float32

from pseudolabel.errors import InputError, RejectError
from pseudolabel.masks import SoftMask
from pseudolabel.segmenters.base import IGNORE_INDEX, Photo, SemanticResult
from pseudolabel.segmenters.card import ModelCard
from pseudolabel.segmenters.preprocess import prepare
from pseudolabel.segmenters.reduce import reduce_logits
from pseudolabel.segmenters.zoom import Look, seen, share_of, whole_of

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
        return [self.reduced(photo, one) for photo, one in zip(photos, self.logits(photos), strict=True)]

    def logits(self, photos: Sequence[Photo]) -> list[OneLogits | RejectError]:
        """What the network says of whole photos, on its own grid and device."""
        return self._in_order(photos, [self._whole_size(photo) for photo in photos])

    def reduced(self, photo: Photo, logits: OneLogits | RejectError) -> SemanticResult | RejectError:
        """The label map and confidence of a photo out of its logits."""
        if isinstance(logits, RejectError):
            return logits
        return reduce_logits(logits, photo.size_hw, align_corners=self._card.output.align_corners)

    def look(
        self, looks: Sequence[Look], whole: Sequence[tuple[Photo, OneLogits]] = ()
    ) -> list[SoftMask | RejectError]:
        """The probability of each look's class on its cells; a `RejectError` where one look alone failed.

        Looks at the same pixels share one forward pass, and need none where the logits of the whole photo show them.

        Args:
            whole: photos with their logits.
        """
        sizes = [self._closer_size(look) for look in looks]
        shown = [(id(look.photo), look.crop_xyxy, size) for look, size in zip(looks, sizes, strict=True)]
        found: dict[Any, OneLogits | RejectError] = {
            (id(photo), whole_of(photo.size_hw), self._whole_size(photo)): logits for photo, logits in whole
        }
        new = {key: look for key, look in zip(shown, looks, strict=True) if key not in found}
        logits = self._in_order([look.closer() for look in new.values()], [size for _, _, size in new])
        found |= dict(zip(new, logits, strict=True))
        return [self._seen(look, found[key]) for look, key in zip(looks, shown, strict=True)]

    def _seen(self, look: Look, logits: OneLogits | RejectError) -> SoftMask | RejectError:
        if isinstance(logits, RejectError):
            return logits
        return seen(logits, look, align_corners=self._card.output.align_corners)

    def _whole_size(self, photo: Photo) -> tuple[int, int]:
        return self._card.network_size(photo.size_hw, self._long_side)

    def _closer_size(self, look: Look) -> tuple[int, int]:
        """Where the card has a rule for other sizes, a share of that of a whole image, else that."""
        whole, rule = self._whole_size(look.photo), self._card.input.size_rule
        if look.is_whole or rule is None:
            return whole
        share = share_of(look, max(whole))
        if self._card.input.size is None or self._long_side is not None:
            return self._card.network_size(look.size_hw, round(share * max(whole)))
        return whole if share == 1 else (rule.nearest(share * whole[0]), rule.nearest(share * whole[1]))

    def _in_order(self, photos: Sequence[Photo], sizes: Sequence[tuple[int, int]]) -> list[OneLogits | RejectError]:
        found = dict(self._logits(photos, sizes))
        return [found[place] for place in range(len(photos))]

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
        logits = self._network(prepared[0][None] if self.batch_size == 1 else torch.stack(prepared))
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
