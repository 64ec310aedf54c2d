"""BoxTeacher: a moving average of the network makes one pseudo mask per box, weighted by how sure it is.

Source: Cheng et al., BoxTeacher (arXiv 2210.05174).
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torchvision.ops import box_iou

from pseudolabel.condinst.batch import STRIDE, Batch, rescaled_planes
from pseudolabel.condinst.inference import detect
from pseudolabel.condinst.network import CondInst, Features
from pseudolabel.condinst.ranking import bpma
from pseudolabel.fusion.scoring import detection_rank, mask_confidence_code, mask_confidence_paper
from pseudolabel.losses.boxes import affinity_loss, box_cells, box_masks, dice_loss
from pseudolabel.teachers.condinst.boxinst import BoxInst, Instances, risen
from pseudolabel.teachers.condinst.config import BoxTeacherConfig
from pseudolabel.teachers.condinst.copy_paste import CopyPasteConfig, MemoryBank, PseudoMasks, masks_of, paste_batch
from pseudolabel.teachers.condinst.taught import Taught
from pseudolabel.teachers.condinst.views import scaled, strong_view
from pseudolabel.training.ema import average_of, momentum_at, update_average

MOVED = 10 / 800  # how far a side of a learner's box moves without question, in short sides of the image: the code's


class BoxTeacher(BoxInst):
    """BoxInst with a teacher; `pseudo_masks` is what its descendants do otherwise."""

    config: BoxTeacherConfig

    def __init__(self, network: CondInst, config: BoxTeacherConfig) -> None:
        super().__init__(network, config)
        self.teacher = average_of(network)
        longer = "train longer (--epochs)"
        self._count = Taught(longer if network.num_classes == 1 else f"{longer}, or for given boxes --class-agnostic")
        self.bank = MemoryBank(_copy_paste_rule(config))

    def losses(self, batch: Batch, *, progress: float) -> Mapping[str, Tensor]:
        batch = self._weak_view(batch)
        sees = self._teacher_sees(batch)
        pseudo = self._masks_by(sees, batch)
        self._follow(sees, batch, pseudo)
        self._count.add(pseudo, teaching=progress > self.config.teacher_from)
        if self.config.copy_paste:
            batch, pseudo = self._pasted(batch, pseudo)
        batch, pseudo = _scaled(batch, pseudo, self._scale())
        seen = strong_view(batch.images, blur=self.config.blur) if self.config.strong else batch.images
        features = self.network(seen)
        assigned = self._assign(features, batch)
        instances = self._instances(features, batch, assigned)
        losses = self._detection(features, assigned) | self._supervised(instances, batch, progress)
        return losses | self._taught(instances, batch, pseudo, progress)

    def pseudo_masks_of(self, batch: Batch) -> list[PseudoMasks]:
        """The teacher's masks of every image's objects."""
        return self._masks_by(self._teacher_sees(batch), batch)

    @torch.no_grad()
    def _teacher_sees(self, batch: Batch) -> Features:
        self.teacher.eval()
        features: Features = self.teacher(batch.images)
        return features

    @torch.no_grad()
    def _masks_by(self, features: Features, batch: Batch) -> list[PseudoMasks]:
        return [self.pseudo_masks(features, batch, index) for index in range(len(batch.images))]

    def _follow(self, features: Features, batch: Batch, pseudo: list[PseudoMasks]) -> None:
        """What a descendant's teacher keeps of a step beside its weights: of what it saw and the masks it made."""

    def pseudo_masks(self, features: Features, batch: Batch, index: int) -> PseudoMasks:
        """At most one detection per box of one image: box-based assignment and mask-aware confidence."""
        config, targets = self.config, batch.targets[index]
        size_hw = (int(batch.sizes_hw[index, 0]), int(batch.sizes_hw[index, 1]))
        found = detect(features.dense, index, size_hw, most=config.detections)
        masks = self.teacher.mask_logits(features, torch.full_like(found.location, index), found.location).sigmoid()
        cells = box_cells(found.boxes, batch.grid_hw, stride=STRIDE)
        masks = masks * box_masks(cells, batch.grid_hw)
        rank = detection_rank(found.scores, masks)
        chosen = bpma(box_iou(targets.boxes, found.boxes), rank, min_iou=config.min_iou)
        inside = box_masks(box_cells(targets.boxes, batch.grid_hw, stride=STRIDE), batch.grid_hw)
        if not len(found.boxes):
            nothing = torch.zeros(len(chosen), device=inside.device)
            return PseudoMasks(torch.zeros_like(inside, dtype=torch.float32), nothing, nothing)
        soft, score = masks[chosen.clamp(min=0)], found.scores[chosen.clamp(min=0)]
        if config.mcs == "code":
            quality = mask_confidence_code(score, soft)
        else:
            quality = mask_confidence_paper(score, soft, inside)
        matched = chosen >= 0
        return PseudoMasks(soft * (inside & matched[:, None, None]), quality * matched, score * matched)

    def _pasted(self, batch: Batch, pseudo: list[PseudoMasks]) -> tuple[Batch, list[PseudoMasks]]:
        pasted = paste_batch(batch, pseudo, self.bank)
        for index, one in enumerate(pseudo):
            height, width = batch.sizes_hw[index].tolist()
            self.bank.add(batch.images[index, :, :height, :width], batch.targets[index], one)
        return pasted

    def _taught(
        self, instances: Instances, batch: Batch, pseudo: list[PseudoMasks], progress: float
    ) -> dict[str, Tensor]:
        """Losses with the pseudo masks, each instance weighted by its mask's quality."""
        config = self.config
        told = masks_of(pseudo, instances.owner)
        losses = self._pixel_losses(instances, told)
        if config.affinity_weight > 0:
            windows = self._windows(instances, batch)
            affinity = affinity_loss(instances.logits, windows, told.masks.float(), self._valid(batch), told.quality)
            losses["affinity"] = config.affinity_weight * affinity
        rise = risen(progress - config.teacher_from, config.teacher_warmup)
        return {name: rise * value for name, value in losses.items()}

    def _pixel_losses(self, instances: Instances, told: PseudoMasks) -> dict[str, Tensor]:
        """Dice with each instance's pseudo mask."""
        if self.config.pixel_weight == 0:
            return {}
        dice = dice_loss(instances.logits.sigmoid(), told.masks.float())
        return {"pixel": self.config.pixel_weight * mean_of_taught(dice, told.quality)}

    def after_step(self, step: int) -> None:
        keep = momentum_at(step, self.config.ema, ramp=self.config.ema_ramp)
        update_average(self.teacher, self.network, keep, buffers="average" if self.config.ema_buffers else "leave")

    def measured(self) -> Mapping[str, float]:
        """`taught`: the share of objects for which the moving average had a mask."""
        return {"taught": self._count.share()}

    def trained_network(self) -> CondInst:
        """The moving average, unless the student is asked for."""
        return self.teacher if self.config.result == "average" else self.network

    def get_extra_state(self) -> dict[str, Any]:
        """The memory bank, so that a resumed training pastes what the stopped one would have pasted."""
        return {"bank": self.bank.state()}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        self.bank.load_state(state["bank"])


def mean_of_taught(losses: Tensor, weight: Tensor) -> Tensor:
    """The weighted losses' mean over the instances with any weight; 0 where there is none."""
    return (weight * losses).sum() / (weight > 0).sum().clamp(min=1)


def _copy_paste_rule(config: BoxTeacherConfig) -> CopyPasteConfig:
    """The options of copy-paste, with lengths in pixels of the images that the network sees."""
    return CopyPasteConfig(
        tutor=config.tutor,
        learner=config.learner,
        place=config.place,
        pastes=config.pastes,
        probability=config.copy_paste_probability,
        min_area_px=max((config.min_tutor * config.image_px) ** 2, 1.0),
        moved_px=MOVED * config.image_px,
    )


def _scaled(batch: Batch, pseudo: list[PseudoMasks], factor: float) -> tuple[Batch, list[PseudoMasks]]:
    """The student's batch at another size than the average's, with the masks that the average made."""
    seen = scaled(batch, factor)
    if seen.grid_hw == batch.grid_hw:
        return seen, pseudo
    return seen, [replace(one, soft=rescaled_planes(one.soft, seen.grid_hw)) for one in pseudo]
