"""Views of a sample: the scale jitter, crop and flip of the weak one, and the colours of the strong one.

They run where the sample lies, GPU or CPU, and draw from torch's generator, which the training loop seeds every step.
"""

from dataclasses import replace

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as T

from pseudolabel.students.config import AugmentConfig
from pseudolabel.students.data import Sample
from pseudolabel.training.views import boxes_in_window, mirrored_boxes, strong_colours


class Augment:
    """A callable from a sample to its view, at most `image_px` wide and high.

    Source: colours and probabilities are BoxTeacher's ("strong" and "strongv2"); scale jitter is Ghiasi et al.'s.
    """

    def __init__(self, config: AugmentConfig) -> None:
        self.config = config
        strong = config.views.startswith("strong")
        self._colours = strong_colours(blur=config.views == "strong_blur") if strong else None

    def __call__(self, sample: Sample) -> Sample:
        return self.coloured(self.shaped(sample))

    def shaped(self, sample: Sample) -> Sample:
        """The sample resized, cropped and perhaps mirrored."""
        if self.config.views == "plain":
            return resized(sample, fitting_scale(sample.size_hw, self.config.image_px))
        low, high = self.config.smallest_scale, self.config.largest_scale
        jitter = low + (high - low) * float(torch.rand(()))
        view = resized(sample, jitter * fitting_scale(sample.size_hw, self.config.image_px))
        view = random_crop(view, self.config.image_px)
        return flipped(view) if float(torch.rand(())) < 0.5 else view

    def coloured(self, sample: Sample) -> Sample:
        """The sample in other colours, for the strong views."""
        return sample if self._colours is None else replace(sample, image=self._colours(sample.image))


def fitting_scale(size_hw: tuple[int, int], side_px: int) -> float:
    """The factor that makes the longer side `side_px`."""
    return side_px / max(size_hw)


def resized(sample: Sample, scale: float) -> Sample:
    """The sample at another size; boxes follow the true factor of each axis."""
    size_hw = scaled_size(sample.size_hw, scale)
    if size_hw == sample.size_hw:
        return sample
    factor = [size_hw[1] / sample.size_hw[1], size_hw[0] / sample.size_hw[0]] * 2
    return replace(
        sample,
        image=resize_image(sample.image, size_hw),
        boxes=sample.boxes * sample.boxes.new_tensor(factor),
        masks=_nearest(sample.masks, size_hw),
        unsure=_nearest(sample.unsure, size_hw),
        ignored=_nearest(sample.ignored[None], size_hw)[0],
    )


def scaled_size(size_hw: tuple[int, int], scale: float) -> tuple[int, int]:
    """Rounded sides, at least a pixel."""
    return max(round(size_hw[0] * scale), 1), max(round(size_hw[1] * scale), 1)


def resize_image(image: Tensor, size_hw: tuple[int, int]) -> Tensor:
    """Bilinear, with a filter where it shrinks."""
    result: Tensor = T.resize(image, list(size_hw), antialias=True)
    return result


def _nearest(masks: Tensor, size_hw: tuple[int, int]) -> Tensor:
    if not len(masks):
        return masks.new_zeros(0, *size_hw)
    planes = torch.nn.functional.interpolate(masks[None].to(torch.uint8), size=size_hw, mode="nearest-exact")
    return planes[0].bool()


def random_crop(sample: Sample, side_px: int) -> Sample:
    """A random part of at most `side_px` by `side_px`; objects of which nothing is left are gone."""
    (height, width), side = sample.size_hw, side_px
    if height <= side and width <= side:
        return sample
    top = int(torch.randint(max(height - side, 0) + 1, ()))
    left = int(torch.randint(max(width - side, 0) + 1, ()))
    return cropped(sample, top, left, min(height, side), min(width, side))


def cropped(sample: Sample, top: int, left: int, height: int, width: int) -> Sample:
    """A window of the sample. A box is cut by the window; where a mask is there, what is left of it has to be seen."""
    rows, columns = slice(top, top + height), slice(left, left + width)
    boxes, large = boxes_in_window(sample.boxes, top=top, left=left, height=height, width=width)
    masks = sample.masks[:, rows, columns]
    window = replace(
        sample,
        image=sample.image[:, rows, columns],
        boxes=boxes,
        masks=masks,
        unsure=sample.unsure[:, rows, columns],
        ignored=sample.ignored[rows, columns],
    )
    return window.select(large & (masks.flatten(1).any(dim=1) | ~sample.has_mask))


def flipped(sample: Sample) -> Sample:
    """The sample mirrored left to right."""
    return replace(
        sample,
        image=sample.image.flip(-1),
        boxes=mirrored_boxes(sample.boxes, sample.size_hw[1]),
        masks=sample.masks.flip(-1),
        unsure=sample.unsure.flip(-1),
        ignored=sample.ignored.flip(-1),
    )
