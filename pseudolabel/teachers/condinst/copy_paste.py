"""Peer-assisted Copy-paste: objects with good pseudo masks are pasted over their peers in other images.

Tutors are kept in a memory bank. An entry is cut out of its image; it is used once. Colours for the pairwise loss come
from the pasted image itself, because the pasted picture is the one that all losses look at.

Source: BoxSeg (arXiv 2504.05137), section 3.4, with the numbers of the released code.
"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pseudolabel.condinst.batch import STRIDE, Batch, Targets, masks_to_grid
from pseudolabel.config import Config, option
from pseudolabel.training.pasting import (
    Tutor,
    best_of_classes,
    isolated,
    pasted,
    pixel_box,
    random_corner,
    random_index,
    spot_at,
    tight_box,
    uncovered,
)


class CopyPasteConfig(Config):
    """Who may teach, and how often."""

    length: int = option(80, "tutors in the bank", ge=1)
    isolation: float = option(0.1, "a tutor's box overlaps no other by this IoU or more", ge=0, le=1)
    min_quality: float = option(0.5, "least score of a tutor's mask, and of its boxes", ge=0, le=1)
    min_area_px: int = option(300, "least area of a tutor, and of what remains of a learner that moved", ge=1)
    probability: float = option(0.5, "of a paste per image", ge=0, le=1)
    moved_px: float = option(10.0, "a learner whose sides moved less is kept however small it is", ge=0)


@dataclass(frozen=True, slots=True)
class BankedTutor(Tutor):
    """A tutor with the score of its box; `quality` is that of its mask."""

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
        self.tutors: list[BankedTutor] = []

    def add(self, image: Float[Tensor, "3 H W"], targets: Targets, pseudo: PseudoMasks) -> None:
        """Take in the objects of an image that are fit to teach."""
        for index in self._fit(targets, pseudo).nonzero()[:, 0].tolist():
            tutor = cut_out(image, pseudo, targets, index)
            if int(tutor.mask.sum()) < self.config.min_area_px:
                continue
            if len(self.tutors) >= self.config.length:
                self.tutors.pop(random_index(len(self.tutors)))
            self.tutors.append(tutor)

    def _fit(self, targets: Targets, pseudo: PseudoMasks) -> Bool[Tensor, "n"]:
        alone = isolated(targets.boxes, below=self.config.isolation)
        return alone & (torch.minimum(pseudo.quality, pseudo.box_score) > self.config.min_quality)

    def take(self, labels: set[int]) -> BankedTutor | None:
        """The best tutor of one of these classes, which leaves the bank."""
        best = best_of_classes(self.tutors, labels)
        return None if best is None else self.tutors.pop(best)

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
            self.tutors.append(BankedTutor(entry["pixels"], entry["mask"], int(label), quality, box_score))


def cut_out(image: Float[Tensor, "3 H W"], pseudo: PseudoMasks, targets: Targets, index: int) -> BankedTutor:
    """An object's pixels under its box, its grid mask enlarged to them."""
    left, top, right, bottom = pixel_box(targets.boxes[index], image.shape[1:])
    full = pseudo.masks[index].repeat_interleave(STRIDE, dim=0).repeat_interleave(STRIDE, dim=1)
    return BankedTutor(
        image[:, top:bottom, left:right].clone(),
        full[top:bottom, left:right].clone(),
        int(targets.labels[index]),
        float(pseudo.quality[index]),
        float(pseudo.box_score[index]),
    )


def paste_batch(batch: Batch, pseudo: list[PseudoMasks], bank: MemoryBank) -> tuple[Batch, list[PseudoMasks]]:
    """The batch with a tutor over a learner of its class on some images; nothing that was passed in changes."""
    images, targets, masks = batch.images.clone(), list(batch.targets), list(pseudo)
    for index, one in enumerate(targets):
        if float(torch.rand(())) >= bank.config.probability or not len(one.boxes):
            continue
        tutor = bank.take(set(one.labels.tolist()))
        if tutor is None:
            continue
        x, y = random_corner(tutor, one.boxes, one.labels)
        spot = spot_at(int(x), int(y), tutor, (int(batch.sizes_hw[index, 0]), int(batch.sizes_hw[index, 1])))
        if spot is None:
            continue
        image, covered = pasted(images[index], tutor, spot)
        if int(covered.sum()) > bank.config.min_area_px:
            images[index] = image
            targets[index], masks[index] = covered_by(one, pseudo[index], covered, tutor, bank.config)
    return replace(batch, images=images, targets=tuple(targets)), masks


def covered_by(
    targets: Targets, pseudo: PseudoMasks, covered: Bool[Tensor, "H W"], tutor: BankedTutor, config: CopyPasteConfig
) -> tuple[Targets, PseudoMasks]:
    """The objects of an image below what a tutor covers of it, and the tutor as the last of them."""
    boxes, left_px = uncovered(targets.boxes, covered)
    moved = (boxes - targets.boxes).abs().amax(dim=1)
    grid = masks_to_grid(covered[None])
    masked = pseudo.masks.flatten(1).any(dim=1)  # an object that the teacher does not find yet is as large as its box
    remaining = torch.where(masked, _grid_area(pseudo.masks & ~grid), left_px)
    keep = (left_px > 0) & ((moved <= config.moved_px) | (remaining > config.min_area_px))
    labels = torch.cat([targets.labels[keep], targets.labels.new_tensor([tutor.label])])
    return (
        Targets(torch.cat([boxes[keep], tight_box(covered)]), labels, *_masks(targets, grid, keep)),
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


def _grid_area(masks: Bool[Tensor, "n h w"]) -> Int[Tensor, "n"]:
    """Areas in pixels of masks on the grid."""
    return masks.sum(dim=(1, 2)) * STRIDE**2
