"""Which location learns which object, and which of them train the mask head.

Source: FCOS (arXiv 1904.01355) with centre sampling; CondInst's and BoxInst's choice of positives.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pseudolabel.condinst.fcos import Locations

FINEST_PX = 64.0  # largest distance to a side that the finest level learns; each further level twice that
RADIUS = 1.5  # in strides, of the square around an object's centre


def distances(xy: Float[Tensor, "l 2"], boxes: Float[Tensor, "n 4"]) -> Float[Tensor, "l n 4"]:
    """Left, top, right, bottom distance in pixels from every location to every box's sides, negative outside."""
    return torch.cat([xy[:, None] - boxes[None, :, :2], boxes[None, :, 2:] - xy[:, None]], dim=2)


def level_ranges(finest_px: float) -> tuple[tuple[float, float], ...]:
    """Smallest and largest distance, in pixels, from a location to its object's farthest side, for every level."""
    ends = [finest_px * 2**level for level in range(4)]
    return tuple(zip((-1.0, *ends), (*ends, 1e8), strict=True))


def assign(
    locations: Locations,
    boxes: Float[Tensor, "n 4"],
    centres: Float[Tensor, "n 2"] | None = None,
    *,
    finest_px: float = FINEST_PX,
) -> Int[Tensor, "l"]:
    """Index of the object that each location learns, -1 for background.

    A location learns an object when it is strictly inside both the box and the square of 1.5 strides around the
    object's centre, and its farthest side is in the level's range, ends included; the smallest box wins.

    Args:
        centres: of the objects, for instance of their masks; the boxes' middles where not given.
        finest_px: see `level_ranges`; the published 64 is for images of 800 px.
    """
    if not len(boxes):
        return torch.full((len(locations.xy),), -1, dtype=torch.int64, device=locations.xy.device)
    middle = (boxes[:, :2] + boxes[:, 2:]) / 2 if centres is None else centres
    reach = RADIUS * locations.stride[:, None, None]
    low = torch.maximum(middle[None] - reach, boxes[None, :, :2])
    high = torch.minimum(middle[None] + reach, boxes[None, :, 2:])
    near = ((locations.xy[:, None] > low) & (locations.xy[:, None] < high)).all(dim=2)
    farthest = distances(locations.xy, boxes).amax(dim=2)
    limits = torch.tensor(level_ranges(finest_px), device=boxes.device)[locations.level]
    fits = near & (farthest >= limits[:, :1]) & (farthest <= limits[:, 1:])
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    cost, chosen = torch.where(fits, area[None], torch.inf).min(dim=1)
    return torch.where(cost.isfinite(), chosen, -1)


def top_positives(
    score: Float[Tensor, "p"], owner: Int[Tensor, "p"], image: Int[Tensor, "p"], *, per_image: int = 64
) -> Int[Tensor, "k"]:
    """Indices of the positives that train the mask head, ascending: the same number of the best of every object.

    Args:
        score: class probability times centerness of each positive location.
        owner: its object, numbered over the whole batch.
        per_image: shared by the objects of an image that have positives; each gets at least one.

    Source: BoxInst's released code.
    """
    if not len(score):
        return torch.zeros(0, dtype=torch.int64, device=score.device)
    by_score = score.argsort(descending=True, stable=True)
    order = by_score[owner[by_score].argsort(stable=True)]
    count = torch.bincount(owner)
    rank = torch.arange(len(order), device=score.device) - (count.cumsum(0) - count)[owner[order]]
    objects = torch.bincount(image[order[rank == 0]], minlength=int(image.max()) + 1)
    quota = (per_image // objects.clamp(min=1)).clamp(min=1)
    return order[rank < quota[image[order]]].sort().values
