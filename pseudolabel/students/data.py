"""Samples and batches of a student: images with boxes, masks, weights, and the pixels about which nothing is known."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Self

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from pseudolabel import rle
from pseudolabel.errors import InputError, RejectError
from pseudolabel.images import load_image
from pseudolabel.masks import pixel_window
from pseudolabel.pixel_rule import PixelRule
from pseudolabel.sources import ImagesRoot
from pseudolabel.students.labels import LabelledImage

SIDE = 32  # sides of a batch are multiples of the coarsest stride of the encoders


@dataclass(frozen=True, slots=True)
class Sample:
    """One image and its objects; lengths in its pixels.

    `masks` has a plane for every object, empty where `has_mask` is False. `unsure` is true where such a mask is not to
    be learned, `ignored` on pixels that are neither object nor background.
    """

    name: str
    image: Tensor  # (3, h, w) RGB, 0 to 255, uint8 or float
    boxes: Float[Tensor, "n 4"]
    labels: Int[Tensor, "n"]
    masks: Bool[Tensor, "n h w"]
    has_mask: Bool[Tensor, "n"]
    weights: Float[Tensor, "n"]
    unsure: Bool[Tensor, "n h w"]
    ignored: Bool[Tensor, "h w"]

    @property
    def size_hw(self) -> tuple[int, int]:
        return self.image.shape[1], self.image.shape[2]

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Self:
        """The sample with all its tensors on a device."""
        moved = {
            one.name: getattr(self, one.name).to(device, non_blocking=non_blocking)
            for one in fields(self)
            if one.name != "name"
        }
        return replace(self, **moved)

    def select(self, kept: Bool[Tensor, "n"]) -> Self:
        """The sample with some of its objects."""
        names = ("boxes", "labels", "masks", "has_mask", "weights", "unsure")
        return replace(self, **{name: getattr(self, name)[kept] for name in names})


@dataclass(frozen=True, slots=True)
class StudentBatch:
    """Samples whose images stand in one tensor of padded pictures, content at the top left; padding is background."""

    images: Float[Tensor, "b 3 H W"]
    samples: tuple[Sample, ...]  # their masks and ignored pixels have the padded size

    @property
    def names(self) -> list[str]:
        return [sample.name for sample in self.samples]

    @property
    def sizes_hw(self) -> list[tuple[int, int]]:
        return [sample.size_hw for sample in self.samples]

    def to(self, device: torch.device | str) -> Self:
        """The batch with all its tensors on a device."""
        return replace(self, images=self.images.to(device), samples=tuple(one.to(device) for one in self.samples))


def collate(samples: Sequence[Sample], *, side_hw: tuple[int, int] | None = None) -> StudentBatch:
    """One batch of samples of any size.

    Args:
        side_hw: the padded size, multiples of 32; else the smallest that holds all.
    """
    high, wide = side_hw or tuple(padded(max(sides)) for sides in zip(*(one.size_hw for one in samples), strict=True))
    images = [_pad(one.image.float(), (high, wide)) for one in samples]
    together = torch.stack(images).to(memory_format=torch.channels_last)
    return StudentBatch(together, tuple(_padded_sample(one, (high, wide)) for one in samples))


def padded(length: int) -> int:
    """The next multiple of 32."""
    return -(-length // SIDE) * SIDE


def pad_images(images: Sequence[Tensor]) -> Float[Tensor, "b 3 H W"]:
    """Images of any size in one padded tensor, channels last."""
    sizes = [(one.shape[1], one.shape[2]) for one in images]
    high, wide = (padded(max(sides)) for sides in zip(*sizes, strict=True))
    return torch.stack([_pad(one.float(), (high, wide)) for one in images]).to(memory_format=torch.channels_last)


def _padded_sample(sample: Sample, size_hw: tuple[int, int]) -> Sample:
    masks, unsure, ignored = (_pad(one, size_hw) for one in (sample.masks, sample.unsure, sample.ignored))
    return replace(sample, masks=masks, unsure=unsure, ignored=ignored)


def _pad(planes: Tensor, size_hw: tuple[int, int]) -> Tensor:
    h, w = planes.shape[-2:]
    return F.pad(planes, (0, size_hw[1] - w, 0, size_hw[0] - h))


def make_sample(image: LabelledImage, pixels: np.ndarray) -> Sample:
    """The sample of an image and its pixels (h, w, 3).

    Raises:
        InputError: the picture has another size than its labels.
    """
    size_hw = (pixels.shape[0], pixels.shape[1])
    if size_hw != image.size_hw:
        raise InputError(f"image {image.file_name}: size is {size_hw}, its labels say {image.size_hw}")
    trained = [one for one in image.objects if one.role != "ignored"]
    masks, unsure = np.zeros((2, len(trained), *size_hw), dtype=np.bool_)
    for plane, doubt, one in zip(masks, unsure, trained, strict=True):
        _paint(plane, one.mask)
        _paint(doubt, one.unsure)
    ignored = np.zeros(size_hw, dtype=np.bool_)
    for one in image.objects:
        if one.role == "ignored":
            _paint_ignored(ignored, one)
    return Sample(
        image.file_name,
        torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1))),
        torch.tensor([one.box_xyxy for one in trained], dtype=torch.float32).view(-1, 4),
        torch.tensor([one.label for one in trained], dtype=torch.int64),
        torch.from_numpy(masks),
        torch.tensor([one.role == "mask" for one in trained], dtype=torch.bool),
        torch.tensor([one.weight for one in trained], dtype=torch.float32),
        torch.from_numpy(unsure),
        torch.from_numpy(ignored),
    )


def _paint(plane: np.ndarray, mask: rle.Rle | None) -> None:
    if mask is not None:
        crop = rle.decode_crop(mask)
        plane[crop.y0 : crop.y0 + crop.pixels.shape[0], crop.x0 : crop.x0 + crop.pixels.shape[1]] |= crop.pixels


def _paint_ignored(plane: np.ndarray, one: Any) -> None:
    if one.mask is not None:
        _paint(plane, one.mask)
        return
    window = pixel_window(one.box_xyxy, (plane.shape[0], plane.shape[1]))
    x0, y0 = int(window.x0), int(window.y0)
    plane[y0 : y0 + window.height, x0 : x0 + window.width] = True


class SampleLoader:
    """Reads the samples of some images of a label set."""

    def __init__(self, images: Sequence[LabelledImage], root: ImagesRoot, *, rule: PixelRule = PixelRule()) -> None:
        self._images, self._root, self._rule = images, root, rule

    def __len__(self) -> int:
        return len(self._images)

    def __call__(self, places: Sequence[int]) -> list[Sample]:
        """The samples of these numbers.

        Raises:
            InputError: an image cannot be read, or has another size than its labels.
        """
        return [self._sample(self._images[place]) for place in places]

    def _sample(self, image: LabelledImage) -> Sample:
        try:
            pixels = load_image(self._root, image.file_name, rule=self._rule)
        except RejectError as error:
            raise InputError(f"{self._root}: {image.file_name}: {error}") from None
        return make_sample(image, pixels)
