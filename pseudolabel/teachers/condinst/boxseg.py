"""BoxSeg: several candidates per box, fused by quality into one pseudo mask, and pasted peers.

The fusion is the one that the stage `fuse` uses, `pseudolabel.fusion`.

Source: BoxSeg (arXiv 2504.05137).
"""

from typing import Literal

import torch

from pseudolabel.condinst.batch import STRIDE, Batch
from pseudolabel.condinst.inference import ScoreKind, candidates_for_boxes
from pseudolabel.condinst.network import Features
from pseudolabel.condinst.ranking import adaptive_k
from pseudolabel.config import option
from pseudolabel.fusion.quality_aware import FusionRule, quality_aware_fusion
from pseudolabel.losses.boxes import box_cells, box_masks
from pseudolabel.teachers.condinst.boxteacher import BoxTeacher, BoxTeacherConfig
from pseudolabel.teachers.condinst.copy_paste import PseudoMasks


class BoxSegConfig(BoxTeacherConfig):
    """BoxTeacher's options and those of the Quality-Aware Module."""

    classification: Literal["focal", "varifocal"] = option("varifocal", "loss of the class scores")
    copy_paste: bool = option(True, "paste objects with good pseudo masks over their peers")
    ranking: Literal["bqr", "bpma"] = option("bqr", "candidates by box quality without NMS, or BoxTeacher's one")
    candidates: int = option(0, "candidates per box; 0 = 2 to 10 by the box's area", ge=0)
    fusion: Literal["qmf", "vote", "best"] = option("qmf", "how candidates become one mask (vote: the released code)")
    score: Literal["mqs", "mcs", "mcs-paper", "code"] = option("mqs", "how a fused mask is scored")
    tau_box: float = option(0.1, "a candidate's box score is above this", ge=0, lt=1)
    tau_pixel: float = option(0.5, "a pixel's probability is above this", ge=0, lt=1)
    box_score: Literal["iacs", "sqrt_iacs_ctr"] = option("iacs", "what a candidate's box score is")


class BoxSeg(BoxTeacher):
    """BoxTeacher with the Quality-Aware Module in place of one detection per box."""

    config: BoxSegConfig

    def pseudo_masks(self, features: Features, batch: Batch, index: int) -> PseudoMasks:
        """Fused masks of one image's objects with their scores: BQR, QMF, MQS."""
        if self.config.ranking == "bpma":
            return super().pseudo_masks(features, batch, index)
        config, targets = self.config, batch.targets[index]
        size_hw = (int(batch.sizes_hw[index, 0]), int(batch.sizes_hw[index, 1]))
        kind: ScoreKind = "class" if config.box_score == "iacs" else "sqrt_class_centerness"
        found = candidates_for_boxes(
            features.dense,
            index,
            targets.boxes,
            size_hw,
            k=config.candidates or adaptive_k(_area(targets.boxes)),
            labels=targets.labels,
            kind=kind,
            min_iou=config.min_iou,
        )
        flat = found.location.flatten()
        masks = self.teacher.mask_logits(features, torch.full_like(flat, index), flat).sigmoid()
        masks = masks.view(*found.location.shape, *batch.grid_hw)
        inside = box_masks(box_cells(targets.boxes, batch.grid_hw, stride=STRIDE), batch.grid_hw)
        rule = FusionRule(config.fusion, config.score, config.tau_box, config.tau_pixel)
        fused = quality_aware_fusion(masks, found.scores, found.box_iou, found.ranking.valid, inside, rule)
        threshold = 0.5 if config.fusion == "vote" else config.tau_pixel
        any_kept = fused.kept.any(dim=1)
        pseudo = (fused.mask > threshold) & inside & any_kept[:, None, None]
        quality = fused.quality.score * pseudo.flatten(1).any(dim=1)
        return PseudoMasks(pseudo, quality, fused.quality.box)


def _area(boxes: torch.Tensor) -> torch.Tensor:
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
