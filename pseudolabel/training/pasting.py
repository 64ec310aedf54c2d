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


def random_corner(tutor: Tutor, boxes: Float[Tensor, "n 4"], labels: Int[Tensor, "n"]) -> tuple[float, float]:
    """x and y of a tutor over a random object of its class: a tenth of its box or more lies on that along each axis."""
    peers = (labels == tutor.label).nonzero()[:, 0]
    learner = boxes[peers[random_index(len(peers))]].tolist()
    height, width = tutor.mask.shape
    x = _between(learner[0] - (1 - LEAST_SHOWN) * width, learner[2] - LEAST_SHOWN * width)
    y = _between(learner[1] - (1 - LEAST_SHOWN) * height, learner[3] - LEAST_SHOWN * height)
    return x, y


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


def uncovered(
    boxes: Float[Tensor, "n 4"], covered: Bool[Tensor, "H W"]
) -> tuple[Float[Tensor, "n 4"], Int[Tensor, "n"]]:
    """The tight box around what remains of every box, and how many pixels that is; untouched boxes as they are.

    Sides that nothing covers stay as they are; an untouched box counts one pixel.
    """
    result, remaining = boxes.clone(), torch.ones(len(boxes), dtype=torch.int64, device=boxes.device)
    for index, box in enumerate(boxes):
        left, top, right, bottom = pixel_box(box, covered.shape)
        hidden = covered[top:bottom, left:right]
        if not bool(hidden.any()):
            continue
        free = ~hidden
        remaining[index] = free.sum()
        if remaining[index] > 0:
            tight = tight_box(free)[0] + torch.tensor([left, top] * 2, device=boxes.device)
            result[index, :2] = torch.maximum(box[:2], tight[:2])
            result[index, 2:] = torch.minimum(box[2:], tight[2:])
    return result, remaining


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
