"""Peer-assisted Copy-paste: objects with good pseudo masks are pasted over their peers in other images.

Tutors are kept in a memory bank. An entry is cut out of its image; it is used once. Colours for the pairwise loss come
from the pasted image itself, because the pasted picture is the one that all losses look at.

Source: BoxSeg (arXiv 2504.05137), section 3.4 and table 5, with the numbers of the released code.
"""

from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torchvision.ops import box_iou

from pseudolabel.condinst.batch import STRIDE, Batch, Targets, masks_to_grid
from pseudolabel.condinst.mask_head import aligned_upsample
from pseudolabel.config import Config, option
from pseudolabel.training.pasting import (
    Rest,
    Tutor,
    best_of_classes,
    corner_anywhere,
    corner_over,
    isolated,
    pasted,
    pixel_box,
    random_index,
    random_peer,
    spot_at,
    tight_box,
    uncovered,
)


class CopyPasteConfig(Config):
    """Who teaches whom, where, and how often. Lengths are pixels of the network's input."""

    tutor: Literal["quality", "likely", "random"] = option(
        "quality", "the best of those that are good and alone; a good one, by its quality to the third; or any"
    )
    learner: Literal["lowest", "any"] = option("lowest", "the object whose mask is worst, or any")
    place: Literal["overlapping", "random"] = option("overlapping", "over a learner of the tutor's class, or anywhere")
    length: int = option(80, "tutors in the bank", ge=1)
    isolation: float = option(0.1, "a tutor's box overlaps no other by this IoU or more", ge=0, le=1)
    min_quality: float = option(0.5, "least score of a tutor's mask, and of its boxes", ge=0, le=1)
    min_area_px: float = option(300, "least area of a tutor, and of what remains of a learner that moved", ge=1)
    probability: float = option(0.5, "of a paste per image", ge=0, le=1)
    pastes: int = option(1, "tutors on an image, at most", ge=1)
    moved_px: float = option(10.0, "a learner whose sides moved less is kept however small it is", ge=0)


@dataclass(frozen=True, slots=True)
class BankedTutor(Tutor):
    """A tutor with the score of its box; `quality` is that of its mask."""

    box_score: float


@dataclass(frozen=True, slots=True)
class PseudoMasks:
    """What a teacher says of the objects of one image."""

    soft: Float[Tensor, "n h w"]  # probabilities on the mask grid, 0 outside the box
    quality: Float[Tensor, "n"]  # 0: no mask
    box_score: Float[Tensor, "n"]
    threshold: float = 0.5  # of the probabilities
    pasted: Bool[Tensor, "n"] | None = None  # which came from another image; none where not given

    @property
    def masks(self) -> Bool[Tensor, "n h w"]:
        """On the mask grid, inside the box."""
        return self.soft > self.threshold


def masks_of(pseudo: list[PseudoMasks], owner: Int[Tensor, "p"]) -> PseudoMasks:
    """What a teacher says of a batch, once for every instance of `owner`, the objects' numbers over the batch."""
    pasted = [torch.zeros_like(one.quality, dtype=torch.bool) if one.pasted is None else one.pasted for one in pseudo]
    return PseudoMasks(
        torch.cat([one.soft for one in pseudo])[owner],
        torch.cat([one.quality for one in pseudo])[owner],
        torch.cat([one.box_score for one in pseudo])[owner],
        pseudo[0].threshold,
        torch.cat(pasted)[owner],
    )


class MemoryBank:
    """At most `length` objects that may become tutors; a random one makes room, the oldest among likely ones."""

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
                self.tutors.pop(0 if self.config.tutor == "likely" else random_index(len(self.tutors)))
            self.tutors.append(tutor)

    def _fit(self, targets: Targets, pseudo: PseudoMasks) -> Bool[Tensor, "n"]:
        if self.config.tutor == "random":
            return pseudo.quality > 0
        good = torch.minimum(pseudo.quality, pseudo.box_score) > self.config.min_quality
        if self.config.tutor == "likely":
            return good
        return good & isolated(targets.boxes, below=self.config.isolation)

    def take(self, labels: set[int]) -> BankedTutor | None:
        """The tutor for an image with objects of these classes, which leaves the bank.

        Over a learner it is one of the learner's class; anywhere, one of any class.
        """
        if self.config.place == "random":
            labels = {tutor.label for tutor in self.tutors}
        chosen = best_of_classes(self.tutors, labels) if self.config.tutor == "quality" else self._drawn(labels)
        return None if chosen is None else self.tutors.pop(chosen)

    def _drawn(self, labels: set[int]) -> int | None:
        """The number of a random tutor of one of these classes: each alike, or by its quality to the third."""
        fitting = [number for number, tutor in enumerate(self.tutors) if tutor.label in labels]
        if not fitting:
            return None
        if self.config.tutor == "random":
            return fitting[random_index(len(fitting))]
        weights = torch.tensor([self.tutors[number].quality for number in fitting], dtype=torch.float64) ** 3
        return fitting[int(torch.multinomial(weights, 1))]

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
    """An object's pixels under its box, and its silhouette there: the soft mask read between the grid's cells."""
    left, top, right, bottom = pixel_box(targets.boxes[index], image.shape[1:])
    silhouette = silhouettes(pseudo.soft[index : index + 1], pseudo.threshold)[0]
    return BankedTutor(
        image[:, top:bottom, left:right].clone(),
        silhouette[top:bottom, left:right].clone(),
        int(targets.labels[index]),
        float(pseudo.quality[index]),
        float(pseudo.box_score[index]),
    )


def silhouettes(soft: Float[Tensor, "n h w"], threshold: float = 0.5) -> Bool[Tensor, "n H W"]:
    """Masks of the input's pixels of probabilities on the grid; at the grid's own pixels (`masks_to_grid`) the same."""
    return aligned_upsample(soft[:, None], STRIDE)[:, 0] > threshold


def paste_batch(batch: Batch, pseudo: list[PseudoMasks], bank: MemoryBank) -> tuple[Batch, list[PseudoMasks]]:
    """The batch with tutors on some images; nothing that was passed in changes."""
    images, targets, masks = batch.images.clone(), list(batch.targets), list(pseudo)
    most = bank.config.pastes
    for index, one in enumerate(batch.targets):
        if float(torch.rand(())) >= bank.config.probability or not len(one.boxes):
            continue
        image_hw = (int(batch.sizes_hw[index, 0]), int(batch.sizes_hw[index, 1]))
        for _ in range(1 + random_index(most) if most > 1 else 1):
            picture = images[index], targets[index], masks[index]
            images[index], targets[index], masks[index] = _with_tutor(*picture, bank, image_hw)
    return replace(batch, images=images, targets=tuple(targets)), masks


def _with_tutor(
    image: Float[Tensor, "3 H W"], targets: Targets, pseudo: PseudoMasks, bank: MemoryBank, image_hw: tuple[int, int]
) -> tuple[Tensor, Targets, PseudoMasks]:
    """A picture with one tutor more, or as it is where none fits or too little of it would be seen."""
    tutor = bank.take(set(targets.labels.tolist()))
    if tutor is not None:
        x, y = _corner(tutor, targets, pseudo, image_hw, bank.config)
        spot = spot_at(int(x), int(y), tutor, image_hw)
        if spot is not None:
            changed, covered = pasted(image, tutor, spot)
            if int(covered.sum()) >= bank.config.min_area_px:
                return changed, *covered_by(targets, pseudo, covered, tutor, bank.config)
    return image, targets, pseudo


def _corner(
    tutor: BankedTutor, targets: Targets, pseudo: PseudoMasks, image_hw: tuple[int, int], config: CopyPasteConfig
) -> tuple[float, float]:
    """x and y of the tutor."""
    if config.place == "random":
        return corner_anywhere(tutor.size_hw, image_hw)
    labels = targets.labels
    if config.learner == "lowest":
        peers = labels == tutor.label
        worst = pseudo.quality <= pseudo.quality[peers].min()
        labels = torch.where(worst, labels, -1)  # several are worst where the teacher finds none of them
    return corner_over(tutor.size_hw, targets.boxes[random_peer(labels, tutor.label)])


def covered_by(
    targets: Targets, pseudo: PseudoMasks, covered: Bool[Tensor, "H W"], tutor: BankedTutor, config: CopyPasteConfig
) -> tuple[Targets, PseudoMasks]:
    """The objects of an image below what a tutor covers of it, and the tutor as the last of them."""
    rest, masked = _rest(targets, pseudo, covered)
    moved = (rest.boxes - targets.boxes).abs().amax(dim=1)
    remaining = torch.where(masked, rest.mask_px, rest.box_px)  # what the teacher does not find is as large as its box
    keep = (rest.box_px > 0) & ((moved <= config.moved_px) | (remaining >= config.min_area_px))
    grid = masks_to_grid(covered[None])
    soft = (pseudo.soft * ~grid)[keep]
    quality = pseudo.quality[keep] * (soft > pseudo.threshold).flatten(1).any(dim=1)
    labels = torch.cat([targets.labels[keep], targets.labels.new_tensor([tutor.label])])
    before = torch.zeros_like(keep) if pseudo.pasted is None else pseudo.pasted
    return (
        Targets(torch.cat([rest.boxes[keep], tight_box(covered)]), labels, *_masks(targets, grid, keep)),
        PseudoMasks(
            torch.cat([soft, grid.to(soft)]),
            torch.cat([quality, quality.new_tensor([tutor.quality])]),
            torch.cat([pseudo.box_score[keep], pseudo.box_score.new_tensor([tutor.box_score])]),
            pseudo.threshold,
            torch.cat([before[keep], keep.new_ones(1)]),
        ),
    )


def _rest(targets: Targets, pseudo: PseudoMasks, covered: Bool[Tensor, "H W"]) -> tuple[Rest, Bool[Tensor, "n"]]:
    """What is left of every object, and which of them have a mask: a true one before the teacher's."""
    soft = pseudo.soft
    if targets.masks is not None:
        known = torch.ones_like(targets.labels, dtype=torch.bool) if targets.has_mask is None else targets.has_mask
        soft = torch.where(known[:, None, None], targets.masks.to(soft), soft)
    boxes, untouched = targets.boxes.clone(), torch.ones_like(targets.labels)
    rest = Rest(boxes, untouched, untouched.clone())
    near = box_iou(boxes, tight_box(covered))[:, 0] > 0  # silhouettes are as large as the image: only where needed
    part = uncovered(boxes[near], silhouettes(soft[near], pseudo.threshold), covered)
    for values, values_of_near in zip(rest, part, strict=True):
        values[near] = values_of_near
    return rest, (soft > pseudo.threshold).flatten(1).any(dim=1)


def _masks(
    targets: Targets, covered: Bool[Tensor, "1 h w"], keep: Bool[Tensor, "n"]
) -> tuple[Tensor, Tensor] | tuple[None, None]:
    """True masks where there are some, and which are to be used: never the tutor's, which a teacher made."""
    if targets.masks is None:
        return None, None
    has_mask = torch.ones_like(keep) if targets.has_mask is None else targets.has_mask
    masks = torch.cat([(targets.masks & ~covered)[keep], covered])
    return masks, torch.cat([has_mask[keep], has_mask.new_zeros(1)])
