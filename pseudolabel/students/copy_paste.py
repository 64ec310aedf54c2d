"""Peer-assisted Copy-paste for students: an object with a good mask is pasted over a peer of its class elsewhere.

Tutors come from the batch itself, so that nothing has to be kept between steps and a resumed training goes on exactly;
BoxSeg's memory bank of 80 is thereby as long as a batch. Learner, place and limits are its own.
Source: BoxSeg (arXiv 2504.05137), section 3.4, with the numbers of the released code.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torchvision.ops import box_iou, masks_to_boxes

from pseudolabel.students.data import Sample

ISOLATION = 0.1  # a tutor's box overlaps no other by this IoU or more
MIN_QUALITY = 0.5  # least weight of a tutor's mask
LEAST_SHOWN = 0.1  # share of the tutor's box that overlaps the learner's along each axis, at least


@dataclass(frozen=True, slots=True)
class Tutor:
    """One object cut out of its image."""

    pixels: Float[Tensor, "3 h w"]
    mask: Bool[Tensor, "h w"]
    unsure: Bool[Tensor, "h w"]
    label: int
    weight: float


@dataclass(frozen=True, slots=True)
class Pasted:
    """A tutor on the canvas of another image."""

    image: Float[Tensor, "3 H W"]
    mask: Bool[Tensor, "H W"]
    unsure: Bool[Tensor, "H W"]


def paste_peers(samples: Sequence[Sample], *, probability: float, min_area_px: int = 300) -> list[Sample]:
    """The samples, with that probability each with another sample's best tutor over a learner of its class.

    Args:
        min_area_px: least area of a tutor, and of what is left to be seen of it.
    """
    tutors = [find_tutors(sample, min_area_px=min_area_px) for sample in samples]
    result = []
    for place, sample in enumerate(samples):
        if float(torch.rand(())) < probability:
            others = [one for number, each in enumerate(tutors) if number != place for one in each]
            sample = _taught(sample, others, min_area_px)
        result.append(sample)
    return result


def find_tutors(sample: Sample, *, min_area_px: int) -> list[Tutor]:
    """Objects with a good mask, large, and away from all others, best first."""
    if not len(sample.boxes):
        return []
    overlap: Tensor = box_iou(sample.boxes, sample.boxes).fill_diagonal_(0)
    good = ~(overlap >= ISOLATION).any(dim=1) & sample.has_mask & (sample.weights > MIN_QUALITY)
    good &= sample.masks.flatten(1).sum(dim=1) > min_area_px
    chosen = good.nonzero()[:, 0]
    return [_cut_out(sample, int(index)) for index in chosen[sample.weights[chosen].argsort(descending=True)]]


def _cut_out(sample: Sample, index: int) -> Tutor:
    mask = sample.masks[index]
    x0, y0, x1, y1 = masks_to_boxes(mask[None])[0].long().tolist()
    window = (slice(y0, y1 + 1), slice(x0, x1 + 1))
    pixels = sample.image[(slice(None), *window)]
    unsure = sample.unsure[index][window]
    return Tutor(pixels, mask[window], unsure, int(sample.labels[index]), float(sample.weights[index]))


def _taught(sample: Sample, tutors: Sequence[Tutor], min_area_px: int) -> Sample:
    """The sample with the best tutor of a class of its own pasted, or as it was."""
    own = set(sample.labels.tolist())
    fitting = [one for one in tutors if one.label in own]
    if not fitting:
        return sample
    tutor = max(fitting, key=lambda one: one.weight)
    learners = (sample.labels == tutor.label).nonzero()[:, 0]
    learner = int(learners[int(torch.randint(len(learners), ()))])
    pasted = place_tutor(sample, tutor, sample.boxes[learner])
    return paste(sample, tutor, pasted) if int(pasted.mask.sum()) > min_area_px else sample


def place_tutor(sample: Sample, tutor: Tutor, box: Float[Tensor, "4"]) -> Pasted:
    """The tutor somewhere over a box, at least a tenth of its own box on it along each axis."""
    height, width = tutor.mask.shape
    left = _between(float(box[0]) - (1 - LEAST_SHOWN) * width, float(box[2]) - LEAST_SHOWN * width)
    top = _between(float(box[1]) - (1 - LEAST_SHOWN) * height, float(box[3]) - LEAST_SHOWN * height)
    x, y = round(left), round(top)
    (high, wide), image = sample.size_hw, sample.image.clone()
    x0, y0, x1, y1 = max(x, 0), max(y, 0), min(x + width, wide), min(y + height, high)
    mask, unsure = torch.zeros(2, high, wide, dtype=torch.bool, device=image.device)
    if x1 > x0 and y1 > y0:
        part = (slice(y0 - y, y1 - y), slice(x0 - x, x1 - x))
        mask[y0:y1, x0:x1] = tutor.mask[part]
        unsure[y0:y1, x0:x1] = tutor.unsure[part]
        area = image[:, y0:y1, x0:x1]
        area[:, tutor.mask[part]] = tutor.pixels[(slice(None), *part)][:, tutor.mask[part]]
    return Pasted(image, mask, unsure)


def paste(sample: Sample, tutor: Tutor, pasted: Pasted) -> Sample:
    """The sample with one object more, and the others without what it covers; what is wholly covered is gone."""
    masks = sample.masks & ~pasted.mask
    boxes = torch.stack([uncovered(box, pasted.mask) for box in sample.boxes])
    left = (boxes[:, 2:] > boxes[:, :2]).all(dim=1) & (masks.flatten(1).any(dim=1) | ~sample.has_mask)
    unsure = sample.unsure & ~pasted.mask  # what is covered is none of theirs, without a doubt
    rest = replace(sample, boxes=boxes, masks=masks, unsure=unsure, ignored=sample.ignored & ~pasted.mask).select(left)
    box = masks_to_boxes(pasted.mask[None]) + torch.tensor([0, 0, 1, 1], device=boxes.device)
    return replace(
        rest,
        image=pasted.image,
        boxes=torch.cat([rest.boxes, box.to(rest.boxes)]),
        labels=torch.cat([rest.labels, rest.labels.new_tensor([tutor.label])]),
        masks=torch.cat([rest.masks, pasted.mask[None]]),
        has_mask=torch.cat([rest.has_mask, rest.has_mask.new_tensor([True])]),
        weights=torch.cat([rest.weights, rest.weights.new_tensor([tutor.weight])]),
        unsure=torch.cat([rest.unsure, pasted.unsure[None]]),
    )


def uncovered(box: Float[Tensor, "4"], covered: Bool[Tensor, "H W"]) -> Float[Tensor, "4"]:
    """The tight box of the pixels of a box that are not covered; sides that nothing covers stay as they are."""
    limit = (covered.shape[1], covered.shape[0]) * 2
    x0, y0 = (max(int(value), 0) for value in box[:2].floor())
    x1, y1 = (min(int(value), limit[place]) for place, value in enumerate(box[2:].ceil()))
    free = ~covered[y0:y1, x0:x1]
    if not bool(free.any()):
        return torch.zeros_like(box)
    columns, rows = free.any(dim=0).nonzero()[:, 0], free.any(dim=1).nonzero()[:, 0]
    inner = box.new_tensor([x0 + int(columns[0]), y0 + int(rows[0]), x0 + int(columns[-1]) + 1, y0 + int(rows[-1]) + 1])
    return torch.cat([torch.maximum(box[:2], inner[:2]), torch.minimum(box[2:], inner[2:])])


def _between(low: float, high: float) -> float:
    return low + (high - low) * float(torch.rand(()))
