"""Copy-paste between the crops of a batch: an object with a good mask is laid over its neighbour in the batch.

What lies in front of an object within its own box has no box of its own as often as not, and a network that learns
from boxes takes it for a part of the object. A pasted tutor is such a thing, and where it is, is known.

Source: Peer-assisted Copy-paste of BoxSeg (arXiv 2504.05137), section 3.4, on crops: every crop's tutor is the object
of another crop of the batch, whatever its class, and a place that would move a side of the learner's box is not used.
"""

from dataclasses import replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from pseudolabel.losses.boxes import box_cells, box_masks
from pseudolabel.teachers.mal.crops import Views
from pseudolabel.teachers.mal.network import STRIDE

SHARES = (0.1, 0.6)  # area of a tutor's box, in areas of the learner's
MOST_STRETCH = 4.0  # of a tutor whose box has other sides than the learner's
LEAST_SCORE = 0.6  # of a tutor's mask
LEAST_LEFT = 0.5  # of the learner's mask
TOLD = 0.5  # share of the tutors whose masks the network is told
OVERLAP = 0.1  # of the tutor's sides, least


def with_pastes(views: Views, scores: Float[Tensor, "b"] | None, *, probability: float) -> Views:
    """The crops with tutors over some of them, their masks without what is hidden, and how much of each cell is.

    Args:
        scores: of the crops' masks, 0 where there is none; without scores or masks nothing is pasted.
    """
    if views.masks is None or scores is None or len(scores) < 2 or probability == 0:
        return views
    tutor = torch.arange(len(scores), device=scores.device).roll(1)
    place = _places(views, tutor)
    size = (views.masks.shape[1], views.masks.shape[2])
    masks = views.masks * box_masks(box_cells(views.box_in_crop, size), size)
    covered = _laid(place, views, tutor, masks[:, None]) > 0.5
    cells = F.avg_pool2d(covered.float(), STRIDE)[:, 0]
    drawn = torch.rand(len(tutor), device=tutor.device) < probability
    good = (scores[tutor] >= LEAST_SCORE) & (scores > 0)
    use = drawn & good & _keeps_its_sides(masks, cells)
    cells = cells * use[:, None, None]
    pixels = _laid(place, views, tutor, views.rgb)
    rgb = torch.where(covered & use[:, None, None, None], pixels, views.rgb)
    cues = torch.cat([views.cues[:, :-1], _claims(views.cues[:, -1:], cells)], dim=1)
    return replace(views, rgb=rgb, cues=cues, masks=views.masks * (1 - cells), covered=cells)


def _claims(known: Float[Tensor, "b 1 h w"], tutors: Float[Tensor, "b h w"]) -> Float[Tensor, "b 1 h w"]:
    """What other objects' masks cover, of some crops with the tutors' masks."""
    told = torch.rand(len(tutors), device=tutors.device) < TOLD
    return torch.maximum(known, (tutors * told[:, None, None])[:, None])


def _places(views: Views, tutor: Tensor) -> Float[Tensor, "b 4"]:
    """Where each crop's tutor goes, in pixels of the crop; it keeps its sides' ratio in the image, within limits."""
    count, device = len(tutor), tutor.device
    own = views.box_in_crop
    side = own[:, 2:] - own[:, :2]
    shown = side * (views.rect[:, 2:] - views.rect[:, :2])  # proportional to the box's sides in the image
    ratio = shown[:, 0] / shown[:, 1]
    ratio = (ratio[tutor] / ratio).clamp(1 / MOST_STRETCH, MOST_STRETCH)
    share = SHARES[0] + (SHARES[1] - SHARES[0]) * torch.rand(count, device=device)
    size = torch.stack([(share * ratio).sqrt(), (share / ratio).sqrt()], dim=1) * side
    low, high = own[:, :2] - (1 - OVERLAP) * size, own[:, 2:] - OVERLAP * size
    corner = low + (high - low) * torch.rand(count, 2, device=device)
    return torch.cat([corner, corner + size], dim=1)


def _laid(
    place: Float[Tensor, "b 4"], views: Views, tutor: Tensor, planes: Float[Tensor, "b c h w"]
) -> Float[Tensor, "b c H W"]:
    """Each crop's tutor's planes as they lie over the crop, zero beyond them."""
    source, size = views.box_in_crop[tutor], views.rgb.shape[-1]
    scale = (source[:, 2:] - source[:, :2]) / (place[:, 2:] - place[:, :2])
    middle = (source[:, 2:] + source[:, :2]) / size - 1
    shift = middle - ((place[:, 2:] + place[:, :2]) / size - 1) * scale
    theta = torch.cat([torch.diag_embed(scale), shift[:, :, None]], dim=2)
    grid = F.affine_grid(theta, [len(place), 1, size, size], align_corners=False)
    return F.grid_sample(planes[tutor], grid, align_corners=False)


def _keeps_its_sides(masks: Float[Tensor, "b h w"], covered: Float[Tensor, "b h w"]) -> Bool[Tensor, "b"]:
    """Whether enough of the mask remains and reaches to all sides that it reached to, but for one cell."""
    before, after = masks > 0.5, (masks > 0.5) & (covered < 0.5)
    enough = after.sum(dim=(1, 2)) >= LEAST_LEFT * before.sum(dim=(1, 2)).clamp(min=1)
    moved = torch.stack([(one - other).abs() for one, other in zip(_sides(before), _sides(after), strict=True)])
    return enough & (moved.amax(dim=0) <= 1)


def _sides(masks: Bool[Tensor, "b h w"]) -> list[Tensor]:
    """First and last column and row of each mask."""
    sides = []
    for axis in (1, 2):
        shadow = masks.any(dim=axis).float()
        length = shadow.shape[1]
        sides += [shadow.argmax(dim=1), length - 1 - shadow.flip(1).argmax(dim=1)]
    return sides
