"""Peer-assisted copy-paste on tensors: an object with a good mask is pasted over a peer of its class elsewhere.

The object that is pasted is the tutor, the peer that it covers in part is the learner.
Source: BoxSeg (arXiv 2504.05137), section 3.4, with the numbers of the released code.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torchvision.ops import box_iou, masks_to_boxes

LEAST_SHOWN = 0.1  # share of the tutor's box that overlaps the learner's along each axis, at least


@dataclass(frozen=True, slots=True)
class Tutor:
    """One object cut out of its image."""

    pixels: Float[Tensor, "3 h w"]
    mask: Bool[Tensor, "h w"]
    label: int
    quality: float

    @property
    def size_hw(self) -> tuple[int, int]:
        """Rows and columns of what was cut out."""
        return self.mask.shape[0], self.mask.shape[1]


class Spot(NamedTuple):
    """Where a tutor goes: rows and columns of the image, and those of the tutor that are seen there."""

    canvas: tuple[slice, slice]
    part: tuple[slice, slice]


def isolated(boxes: Float[Tensor, "n 4"], *, below: float = 0.1) -> Bool[Tensor, "n"]:
    """Whether a box overlaps all others by an IoU less than `below`."""
    overlap: Tensor = box_iou(boxes, boxes).fill_diagonal_(0)
    return ~(overlap >= below).any(dim=1)


def best_of_classes(tutors: Sequence[Tutor], labels: set[int]) -> int | None:
    """The number of the best tutor of one of these classes, the first of equals."""
    fitting = [number for number, tutor in enumerate(tutors) if tutor.label in labels]
    return max(fitting, key=lambda number: tutors[number].quality) if fitting else None


def corner_over(size_hw: tuple[int, int], learner: Float[Tensor, "4"]) -> tuple[float, float]:
    """x and y of a tutor of that size over a learner: a tenth of its box or more lies on that one's along each axis."""
    (height, width), (x1, y1, x2, y2) = size_hw, learner.tolist()
    x = _between(x1 - (1 - LEAST_SHOWN) * width, x2 - LEAST_SHOWN * width)
    y = _between(y1 - (1 - LEAST_SHOWN) * height, y2 - LEAST_SHOWN * height)
    return x, y


def corner_anywhere(size_hw: tuple[int, int], image_hw: tuple[int, int]) -> tuple[float, float]:
    """x and y of a tutor of that size somewhere on an image, as a whole if there is room."""
    y, x = (_between(0, max(room - length, 0)) for length, room in zip(size_hw, image_hw, strict=True))
    return x, y


def random_peer(labels: Int[Tensor, "n"], label: int) -> int:
    """The number of a random object of a class, of which there is one at least."""
    peers = (labels == label).nonzero()[:, 0]
    return int(peers[random_index(len(peers))])


def spot_at(x: int, y: int, tutor: Tutor, size_hw: tuple[int, int]) -> Spot | None:
    """Where a tutor lies whose corner is at (x, y) of an image of that size; None where it is not on the image."""
    height, width = tutor.mask.shape
    left, top, right, bottom = max(x, 0), max(y, 0), min(x + width, size_hw[1]), min(y + height, size_hw[0])
    if left >= right or top >= bottom:
        return None
    canvas = (slice(top, bottom), slice(left, right))
    return Spot(canvas, (slice(top - y, bottom - y), slice(left - x, right - x)))


def pasted(
    image: Float[Tensor, "3 H W"], tutor: Tutor, spot: Spot
) -> tuple[Float[Tensor, "3 H W"], Bool[Tensor, "H W"]]:
    """A copy of the image with the tutor on it, and the pixels that it covers."""
    mask, pixels = tutor.mask[spot.part].to(image.device), tutor.pixels[(slice(None), *spot.part)].to(image.device)
    image = image.clone()
    image[(slice(None), *spot.canvas)][:, mask] = pixels[:, mask]
    covered = torch.zeros(image.shape[1:], dtype=torch.bool, device=image.device)
    covered[spot.canvas] = mask
    return image, covered


class Rest(NamedTuple):
    """What is left to be seen of every object below what covers an image."""

    boxes: Float[Tensor, "n 4"]
    box_px: Int[Tensor, "n"]  # pixels of the box; 1 for a box that is not touched
    mask_px: Int[Tensor, "n"]  # pixels of the mask; 0 where there is none, 1 for a box that is not touched


def uncovered(boxes: Float[Tensor, "n 4"], masks: Bool[Tensor, "n H W"], covered: Bool[Tensor, "H W"]) -> Rest:
    """Boxes as tight around what is left of the objects as they were around the whole objects, and how much is left.

    A side of a box moves to where the rest of its mask ends, if the mask ended elsewhere before, and past the rows or
    columns of the box that are wholly covered. Sides that nothing hides stay as they are, to the fraction of a pixel.

    Args:
        masks: an empty one where no mask is known; then the box alone is looked at.
    """
    result, left = boxes.clone(), torch.ones(2, len(boxes), dtype=torch.int64, device=boxes.device)
    for index, box in enumerate(boxes):
        x1, y1, x2, y2 = pixel_box(box, covered.shape)
        free = ~covered[y1:y2, x1:x2]
        if bool(free.all()):
            continue
        mask = masks[index, y1:y2, x1:x2]
        corner = box.new_tensor([x1, y1, x1, y1])
        result[index] = _narrowed(_narrowed(box, torch.ones_like(free), free, corner), mask, mask & free, corner)
        left[0, index], left[1, index] = free.sum(), (mask & free).sum()
    return Rest(result, left[0], left[1])


def _narrowed(
    box: Float[Tensor, "4"], before: Bool[Tensor, "h w"], after: Bool[Tensor, "h w"], corner: Float[Tensor, "4"]
) -> Float[Tensor, "4"]:
    """The box with those sides moved inwards that a part of it no longer reaches to; as it is if nothing is left.

    Args:
        corner: x and y of the window that the parts are seen in, twice.
    """
    if not bool(after.any()):
        return box
    first, then = (tight_box(part)[0].to(box) + corner for part in (before, after))
    inner = torch.cat([torch.maximum(box[:2], then[:2]), torch.minimum(box[2:], then[2:])])
    return torch.where(first == then, box, inner)


def pixel_box(box: Float[Tensor, "4"], size_hw: torch.Size) -> tuple[int, int, int, int]:
    """Left, top, right, bottom of the pixels that a box touches, the last two exclusive."""
    x1, y1, x2, y2 = box.tolist()
    return max(int(x1), 0), max(int(y1), 0), min(math.ceil(x2), size_hw[1]), min(math.ceil(y2), size_hw[0])


def tight_box(mask: Bool[Tensor, "h w"]) -> Float[Tensor, "1 4"]:
    """The box around a mask, its far sides behind the last pixels."""
    box: Tensor = masks_to_boxes(mask[None]) + torch.tensor([0, 0, 1, 1], device=mask.device)
    return box


def random_index(count: int) -> int:
    """A number below `count`."""
    return int(torch.randint(count, ()))


def _between(low: float, high: float) -> float:
    return low + (high - low) * float(torch.rand(()))
