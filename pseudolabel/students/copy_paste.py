"""Peer-assisted copy-paste for students: tutors come from the batch itself.

Nothing has to be kept between steps, and a resumed training goes on exactly; BoxSeg's memory bank of 80 is thereby as
long as a batch. Learner, place and limits are its own; see `training.pasting`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool
from torch import Tensor

from pseudolabel.students.data import Sample
from pseudolabel.training.pasting import (
    Spot,
    Tutor,
    best_of_classes,
    corner_over,
    isolated,
    pasted,
    pixel_box,
    random_peer,
    spot_at,
    tight_box,
    uncovered,
)

MIN_QUALITY = 0.5  # least weight of a tutor's mask


@dataclass(frozen=True, slots=True)
class PeerTutor(Tutor):
    """A tutor with the pixels that are not to be learned from; `quality` is its weight."""

    unsure: Bool[Tensor, "h w"]


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


def find_tutors(sample: Sample, *, min_area_px: int) -> list[PeerTutor]:
    """Objects with a good mask, large, and away from all others, best first."""
    if not len(sample.boxes):
        return []
    good = isolated(sample.boxes) & sample.has_mask & (sample.weights > MIN_QUALITY)
    good &= sample.masks.flatten(1).sum(dim=1) > min_area_px
    chosen = good.nonzero()[:, 0]
    return [_cut_out(sample, int(index)) for index in chosen[sample.weights[chosen].argsort(descending=True)]]


def _cut_out(sample: Sample, index: int) -> PeerTutor:
    mask = sample.masks[index]
    x0, y0, x1, y1 = pixel_box(tight_box(mask)[0], mask.shape)
    window = (slice(y0, y1), slice(x0, x1))
    pixels, unsure = sample.image[(slice(None), *window)], sample.unsure[index][window]
    return PeerTutor(pixels, mask[window], int(sample.labels[index]), float(sample.weights[index]), unsure)


def _taught(sample: Sample, tutors: Sequence[PeerTutor], min_area_px: int) -> Sample:
    """The sample with the best tutor of a class of its own pasted, or as it was."""
    best = best_of_classes(tutors, set(sample.labels.tolist()))
    if best is None:
        return sample
    tutor = tutors[best]
    x, y = corner_over(tutor.size_hw, sample.boxes[random_peer(sample.labels, tutor.label)])
    spot = spot_at(round(x), round(y), tutor, sample.size_hw)
    seen = 0 if spot is None else int(tutor.mask[spot.part].sum())
    return sample if spot is None or seen <= min_area_px else paste(sample, tutor, spot)


def paste(sample: Sample, tutor: PeerTutor, spot: Spot) -> Sample:
    """The sample with one object more, and the others without what it covers; what is wholly covered is gone."""
    image, covered = pasted(sample.image, tutor, spot)
    doubt = torch.zeros_like(covered)
    doubt[spot.canvas] = tutor.unsure[spot.part]
    masks = sample.masks & ~covered
    boxes, box_px, mask_px = uncovered(sample.boxes, sample.masks, covered)
    left = torch.where(sample.has_mask, mask_px, box_px) > 0
    unsure = sample.unsure & ~covered  # what is covered is none of theirs, without a doubt
    rest = replace(sample, boxes=boxes, masks=masks, unsure=unsure, ignored=sample.ignored & ~covered).select(left)
    return replace(
        rest,
        image=image,
        boxes=torch.cat([rest.boxes, tight_box(covered).to(rest.boxes)]),
        labels=torch.cat([rest.labels, rest.labels.new_tensor([tutor.label])]),
        masks=torch.cat([rest.masks, covered[None]]),
        has_mask=torch.cat([rest.has_mask, rest.has_mask.new_tensor([True])]),
        weights=torch.cat([rest.weights, rest.weights.new_tensor([tutor.quality])]),
        unsure=torch.cat([rest.unsure, doubt[None]]),
    )
