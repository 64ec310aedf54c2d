"""BoxSeg: several candidates per box, fused by quality into one pseudo mask, and pasted peers.

The fusion is the one that the stage `fuse` uses, `pseudolabel.fusion`.

Source: BoxSeg (arXiv 2504.05137).
"""

import torch

from pseudolabel.condinst.assignment import top_positives
from pseudolabel.condinst.batch import STRIDE, Batch
from pseudolabel.condinst.fcos_losses import assign_batch, smoothed_iou
from pseudolabel.condinst.inference import ScoreKind, candidates_for_boxes
from pseudolabel.condinst.network import Features
from pseudolabel.fusion.matching import adaptive_k
from pseudolabel.fusion.quality_aware import FusionRule, quality_aware_fusion
from pseudolabel.fusion.scoring import mask_confidence_code
from pseudolabel.losses.boxes import box_cells, box_masks
from pseudolabel.teachers.condinst.boxteacher import BoxTeacher
from pseudolabel.teachers.condinst.config import BoxSegConfig
from pseudolabel.teachers.condinst.copy_paste import PseudoMasks


class BoxSeg(BoxTeacher):
    """BoxTeacher with the Quality-Aware Module in place of one detection per box."""

    config: BoxSegConfig

    def pseudo_masks(self, features: Features, batch: Batch, index: int) -> PseudoMasks:
        """Fused masks of one image's objects with their scores: BQR, QMF, MQS."""
        if self.config.ranking == "bpma":
            return super().pseudo_masks(features, batch, index)
        if self.config.ranking == "positives":
            return self._masks_of_positives(features, batch, index)
        config, targets = self.config, batch.targets[index]
        size_hw = (int(batch.sizes_hw[index, 0]), int(batch.sizes_hw[index, 1]))
        kind: ScoreKind = "sqrt_class_centerness" if config.box_score == "sqrt_iacs_ctr" else "class"
        found = candidates_for_boxes(
            features.dense,
            index,
            targets.boxes,
            size_hw,
            k=config.per_box or adaptive_k(_area(targets.boxes)).long(),
            labels=targets.labels if self.network.num_classes > 1 else None,
            kind=kind,
            min_iou=config.min_iou,
        )
        flat = found.location.flatten()
        masks = self.teacher.mask_logits(features, torch.full_like(flat, index), flat).sigmoid()
        masks = masks.view(*found.location.shape, *batch.grid_hw)
        inside = box_masks(box_cells(targets.boxes, batch.grid_hw, stride=STRIDE), batch.grid_hw)
        rule = FusionRule(config.fusion, config.score, config.tau_box, config.tau_pixel)
        score = found.box_iou if config.box_score == "box_iou" else found.scores
        fused = quality_aware_fusion(masks, score, found.box_iou, found.ranking.valid, inside, rule)
        threshold = 0.5 if config.fusion == "vote" else config.tau_pixel
        any_kept = fused.kept.any(dim=1)
        soft = fused.mask * (inside & any_kept[:, None, None])
        quality = fused.quality.score * (soft > threshold).flatten(1).any(dim=1)
        return PseudoMasks(soft, quality, fused.quality.box, threshold)

    def _masks_of_positives(self, features: Features, batch: Batch, index: int) -> PseudoMasks:
        """The mean of the masks of the locations that learn each object, weighted by exp(sharpness IoU) of their boxes.

        Those whose box meets the object's by less than `min_iou` are left out. The scores, which SIM does not tell, are
        the boxes' mean IoU with the same weights, and with it BoxTeacher's confidence.

        Source: SIM (arXiv 2303.08578), section 3.2.
        """
        config, targets, dense = self.config, batch.targets[index], features.dense
        assigned = assign_batch(dense, (targets,), finest_px=config.finest_px)
        iou, _ = smoothed_iou(dense.ltrb[index, assigned.location], assigned.ltrb)
        chosen = top_positives(iou, assigned.owner, assigned.image, per_image=config.positives)
        chosen = chosen[iou[chosen] >= config.min_iou]
        owner, location = assigned.owner[chosen], assigned.location[chosen]
        masks = self.teacher.mask_logits(features, torch.full_like(location, index), location).sigmoid()
        mine = owner == torch.arange(len(targets.boxes), device=owner.device)[:, None]
        weights = mine * (config.iou_sharpness * iou[chosen]).exp()
        weights = weights / weights.sum(dim=1, keepdim=True).clamp(min=1e-6)
        inside = box_masks(box_cells(targets.boxes, batch.grid_hw, stride=STRIDE), batch.grid_hw)
        soft = (weights @ masks.flatten(1)).view(inside.shape) * inside
        score = weights @ iou[chosen]
        return PseudoMasks(soft, mask_confidence_code(score, soft), score)


def _area(boxes: torch.Tensor) -> torch.Tensor:
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
