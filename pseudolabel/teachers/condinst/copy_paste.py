"""Peer-assisted Copy-paste: objects with good pseudo masks are pasted over their peers in other images.

Tutors are kept in a memory bank. An entry is cut out of its image; it is used once. Colours for the pairwise loss come
from the pasted image itself, because the pasted picture is the one that all losses look at.

Source: BoxSeg (arXiv 2504.05137), section 3.4, with the numbers of the released code.
"""

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torchvision.ops import box_iou, masks_to_boxes

from pseudolabel.condinst.batch import STRIDE, Batch, Targets, masks_to_grid
from pseudolabel.config import Config, option


class CopyPasteConfig(Config):
    """Who may teach, and how often."""

    length: int = option(80, "tutors in the bank", ge=1)
    isolation: float = option(0.1, "a tutor's box overlaps no other by this IoU or more", ge=0, le=1)
    min_quality: float = option(0.5, "least score of a tutor's mask, and of its boxes", ge=0, le=1)
    min_area_px: int = option(300, "least area of a tutor, and of what remains of a learner that moved", ge=1)
    probability: float = option(0.5, "of a paste per image", ge=0, le=1)
    moved_px: float = option(10.0, "a learner whose sides moved less is kept however small it is", ge=0)


@dataclass(frozen=True, slots=True)
class Tutor:
    """One object cut out of its image."""

    pixels: Float[Tensor, "3 h w"]
    mask: Bool[Tensor, "h w"]
    label: int
    quality: float
    box_score: float


@dataclass(frozen=True, slots=True)
class PseudoMasks:
    """What a teacher says of the objects of one image."""

    masks: Bool[Tensor, "n h w"]  # on the mask grid, inside the box
    quality: Float[Tensor, "n"]  # 0: no mask
    box_score: Float[Tensor, "n"]


class MemoryBank:
    """At most `length` tutors; a random one makes room."""

    def __init__(self, config: CopyPasteConfig) -> None:
        self.config = config
        self.tutors: list[Tutor] = []

    def add(self, image: Float[Tensor, "3 H W"], targets: Targets, pseudo: PseudoMasks) -> None:
        """Take in the objects of an image that are fit to teach."""
        for index in self._fit(targets, pseudo).nonzero()[:, 0].tolist():
            tutor = cut_out(image, pseudo, targets, index)
            if int(tutor.mask.sum()) < self.config.min_area_px:
                continue
            if len(self.tutors) >= self.config.length:
                self.tutors.pop(_draw(len(self.tutors)))
            self.tutors.append(tutor)

    def _fit(self, targets: Targets, pseudo: PseudoMasks) -> Bool[Tensor, "n"]:
        overlap: Tensor = box_iou(targets.boxes, targets.boxes).fill_diagonal_(0)
        alone = ~(overlap >= self.config.isolation).any(dim=1)
        return alone & (torch.minimum(pseudo.quality, pseudo.box_score) > self.config.min_quality)

    def take(self, labels: set[int]) -> Tutor | None:
        """The best tutor of one of these classes, which leaves the bank."""
        fitting = [index for index, tutor in enumerate(self.tutors) if tutor.label in labels]
        return self.tutors.pop(max(fitting, key=lambda index: self.tutors[index].quality)) if fitting else None

    def state(self) -> list[dict[str, Tensor]]:
        """The bank as plain tensors, for a checkpoint."""
        return [
            {
                "pixels": one.pixels.cpu(),
                "mask": one.mask.cpu(),
                "numbers": torch.tensor([float(one.label), one.quality, one.box_score], dtype=torch.float64),
            }
            for one in self.tutors
        ]

    def load_state(self, state: list[dict[str, Tensor]]) -> None:
        """The bank of a checkpoint."""
        self.tutors = []
        for entry in state:
            label, quality, box_score = entry["numbers"].tolist()
            self.tutors.append(Tutor(entry["pixels"], entry["mask"], int(label), quality, box_score))


def cut_out(image: Float[Tensor, "3 H W"], pseudo: PseudoMasks, targets: Targets, index: int) -> Tutor:
    """An object's pixels under its box, its grid mask enlarged to them."""
    left, top, right, bottom = _pixel_box(targets.boxes[index], image.shape[1:])
    full = pseudo.masks[index].repeat_interleave(STRIDE, dim=0).repeat_interleave(STRIDE, dim=1)
    return Tutor(
        image[:, top:bottom, left:right].clone(),
        full[top:bottom, left:right].clone(),
        int(targets.labels[index]),
        float(pseudo.quality[index]),
        float(pseudo.box_score[index]),
    )


def _pixel_box(box: Float[Tensor, "4"], size_hw: torch.Size) -> tuple[int, int, int, int]:
    x1, y1, x2, y2 = box.tolist()
    return max(int(x1), 0), max(int(y1), 0), min(math.ceil(x2), size_hw[1]), min(math.ceil(y2), size_hw[0])


def paste_batch(batch: Batch, pseudo: list[PseudoMasks], bank: MemoryBank) -> tuple[Batch, list[PseudoMasks]]:
    """The batch with a tutor over a learner of its class on some images; nothing that was passed in changes."""
    images, targets, masks = batch.images.clone(), list(batch.targets), list(pseudo)
    for index, one in enumerate(targets):
        if float(torch.rand(())) >= bank.config.probability or not len(one.boxes):
            continue
        tutor = bank.take(set(one.labels.tolist()))
        if tutor is None:
            continue
        size_hw = (int(batch.sizes_hw[index, 0]), int(batch.sizes_hw[index, 1]))
        spot = _spot(tutor, one, size_hw)
        if spot is not None and int(spot.mask.sum()) > bank.config.min_area_px:
            images[index], targets[index], masks[index] = _pasted(
                images[index], one, pseudo[index], spot, tutor, bank.config
            )
    return replace(batch, images=images, targets=tuple(targets)), masks


@dataclass(frozen=True, slots=True)
class _Spot:
    """Where a tutor goes: its visible part, whose first pixel is (x, y) of the image."""

    x: int
    y: int
    pixels: Float[Tensor, "3 h w"]
    mask: Bool[Tensor, "h w"]


def _spot(tutor: Tutor, targets: Targets, size_hw: tuple[int, int]) -> _Spot | None:
    """A random place over a random object of the tutor's class: a tenth of its box overlaps at least, per axis."""
    peers = (targets.labels == tutor.label).nonzero()[:, 0]
    learner = targets.boxes[peers[_draw(len(peers))]].tolist()
    height, width = tutor.mask.shape
    x = int(_between(learner[0] - 0.9 * width, learner[2] - 0.1 * width))
    y = int(_between(learner[1] - 0.9 * height, learner[3] - 0.1 * height))
    columns, rows = slice(max(-x, 0), min(width, size_hw[1] - x)), slice(max(-y, 0), min(height, size_hw[0] - y))
    if columns.start >= columns.stop or rows.start >= rows.stop:
        return None
    device = targets.boxes.device
    return _Spot(
        x + columns.start,
        y + rows.start,
        tutor.pixels[:, rows, columns].to(device),
        tutor.mask[rows, columns].to(device),
    )


def _pasted(
    image: Tensor, targets: Targets, pseudo: PseudoMasks, spot: _Spot, tutor: Tutor, config: CopyPasteConfig
) -> tuple[Tensor, Targets, PseudoMasks]:
    height, width = spot.mask.shape
    covered = torch.zeros(image.shape[1:], dtype=torch.bool, device=image.device)
    covered[spot.y : spot.y + height, spot.x : spot.x + width] = spot.mask
    image = image.clone()
    image[:, spot.y : spot.y + height, spot.x : spot.x + width][:, spot.mask] = spot.pixels[:, spot.mask]
    boxes, left_px = _uncovered(targets.boxes, covered)
    moved = (boxes - targets.boxes).abs().amax(dim=1)
    masked = pseudo.masks.flatten(1).any(dim=1)  # an object that the teacher does not find yet is as large as its box
    remaining = torch.where(masked, _grid_area(pseudo.masks & ~masks_to_grid(covered[None])), left_px)
    keep = (left_px > 0) & ((moved <= config.moved_px) | (remaining > config.min_area_px))
    new_box = masks_to_boxes(covered[None]) + torch.tensor([0, 0, 1, 1], device=image.device)
    label = torch.tensor([tutor.label], device=image.device)
    grid = masks_to_grid(covered[None])
    return (
        image,
        Targets(
            torch.cat([boxes[keep], new_box]), torch.cat([targets.labels[keep], label]), *_masks(targets, grid, keep)
        ),
        PseudoMasks(
            torch.cat([(pseudo.masks & ~grid)[keep], grid]),
            torch.cat([pseudo.quality[keep], pseudo.quality.new_tensor([tutor.quality])]),
            torch.cat([pseudo.box_score[keep], pseudo.box_score.new_tensor([tutor.box_score])]),
        ),
    )


def _masks(
    targets: Targets, covered: Bool[Tensor, "1 h w"], keep: Bool[Tensor, "n"]
) -> tuple[Tensor, Tensor] | tuple[None, None]:
    """True masks where there are some, and which are to be used: never the tutor's, which a teacher made."""
    if targets.masks is None:
        return None, None
    has_mask = torch.ones_like(keep) if targets.has_mask is None else targets.has_mask
    masks = torch.cat([(targets.masks & ~covered)[keep], covered])
    return masks, torch.cat([has_mask[keep], has_mask.new_zeros(1)])


def _uncovered(
    boxes: Float[Tensor, "n 4"], covered: Bool[Tensor, "H W"]
) -> tuple[Float[Tensor, "n 4"], Int[Tensor, "n"]]:
    """The tight box around what remains of every box, and how many pixels that is; untouched boxes as they are."""
    result, remaining = boxes.clone(), torch.ones(len(boxes), dtype=torch.int64, device=boxes.device)
    for index, box in enumerate(boxes):
        left, top, right, bottom = _pixel_box(box, covered.shape)
        hidden = covered[top:bottom, left:right]
        if not bool(hidden.any()):
            continue
        free = ~hidden
        remaining[index] = free.sum()
        if remaining[index] > 0:
            tight = masks_to_boxes(free[None])[0] + torch.tensor([left, top, left + 1, top + 1], device=boxes.device)
            result[index, :2] = torch.maximum(box[:2], tight[:2])
            result[index, 2:] = torch.minimum(box[2:], tight[2:])
    return result, remaining


def _grid_area(masks: Bool[Tensor, "n h w"]) -> Int[Tensor, "n"]:
    """Areas in pixels of masks on the grid."""
    return masks.sum(dim=(1, 2)) * STRIDE**2


def _draw(count: int) -> int:
    return int(torch.randint(count, ()))


def _between(low: float, high: float) -> float:
    return low + (high - low) * float(torch.rand(()))
