"""Mask R-CNN as a graph of fixed shape: proposals, boxes and masks without a step whose shape depends on what is seen.

It finds what torchvision's own steps find, as long as no more than `_CANDIDATES` pairs of box and class pass the least
score, and chains of boxes that suppress each other are no longer than `export.ROUNDS`.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import box_iou, roi_align

from pseudolabel.condinst.pyramid import STRIDES
from pseudolabel.students.mask_rcnn import MaskRcnnStudent
from pseudolabel.students.suppression import greedy

_CANDIDATES = 400  # pairs of box and class before suppression
_LEAST_PROPOSAL_PX, _LEAST_BOX_PX = 1e-3, 1e-2  # torchvision's
_POOLED_LEVELS = 3
_SAMPLES = 2  # per side of a pooled cell

Outputs = tuple[Tensor, Tensor, Tensor, Tensor]


class MaskRcnnGraph(nn.Module):
    """Image to boxes, labels, scores and masks of 28 x 28 cells, each of which fills its box."""

    anchors: Tensor

    def __init__(self, student: MaskRcnnStudent, side_px: int) -> None:
        super().__init__()
        self.student, self.side_px = student, side_px
        with torch.no_grad():
            image = torch.zeros(1, 3, side_px, side_px)
            features = list(student.pyramid(image).values())
            anchors = student.proposals.anchor_generator(ImageList(image, [(side_px, side_px)]), features)[0]
        per_cell = student.proposals.anchor_generator.num_anchors_per_location()
        self.counts = [each * one.shape[2] * one.shape[3] for each, one in zip(per_cell, features, strict=True)]
        self.register_buffer("anchors", anchors.clone(), persistent=False)

    def forward(self, image: Float[Tensor, "1 3 S S"]) -> Outputs:
        features = list(self.student.pyramid(image).values())
        proposals, found = self._proposals(features)
        boxes, label, score = self._boxes(features[:_POOLED_LEVELS], proposals, found)
        heads = self.student.heads
        logits = heads.mask_predictor(heads.mask_head(pooled(features[:_POOLED_LEVELS], boxes, 14)))
        masks = logits[torch.arange(len(label), device=label.device), label + 1].sigmoid()
        return boxes, label, score, masks

    def _proposals(self, features: list[Tensor]) -> tuple[Float[Tensor, "p 4"], Float[Tensor, "p"]]:
        """Boxes that may hold an object, best first, and their scores, 0 for those that were suppressed."""
        part = self.student.proposals
        boxes, scores, before = [], [], 0
        for count, logits, deltas in zip(self.counts, *part.head(features), strict=True):
            score, index = _cells(logits, 1)[:, 0].sigmoid().topk(min(part.pre_nms_top_n(), count))
            anchors = self.anchors[before : before + count][index]
            box = self._clipped(part.box_coder.decode_single(_cells(deltas, 4)[index], anchors))
            boxes.append(box)
            scores.append(score * self._kept(box, torch.zeros_like(index), part.nms_thresh, _LEAST_PROPOSAL_PX))
            before += count
        together = torch.cat(scores)
        best, order = together.topk(min(part.post_nms_top_n(), len(together)))
        return torch.cat(boxes)[order], best

    def _boxes(
        self, features: list[Tensor], proposals: Float[Tensor, "p 4"], found: Float[Tensor, "p"]
    ) -> tuple[Float[Tensor, "k 4"], Int[Tensor, "k"], Float[Tensor, "k"]]:
        heads, classes = self.student.heads, self.student.num_classes
        logits, deltas = heads.box_predictor(heads.box_head(pooled(features, proposals, 7)))
        chance = logits.softmax(dim=1)[:, 1:] * (found > 0)[:, None]
        every = heads.box_coder.decode_single(deltas, proposals).view(len(proposals), classes + 1, 4)[:, 1:]
        score, index = chance.flatten().topk(min(_CANDIDATES, chance.numel()))
        label = index % classes
        boxes = self._clipped(every.reshape(-1, 4)[index])
        kept = self._kept(boxes, label, heads.nms_thresh, _LEAST_BOX_PX) & (score > heads.score_thresh)
        final, order = (score * kept).topk(min(self.student.config.detections, len(score)))
        return boxes[order], label[order], final

    def _clipped(self, boxes: Float[Tensor, "n 4"]) -> Float[Tensor, "n 4"]:
        return boxes.clamp(min=0.0, max=float(self.side_px))

    def _kept(self, boxes: Float[Tensor, "n 4"], label: Int[Tensor, "n"], iou: float, least_px: float) -> Tensor:
        """Which boxes, best first, are large enough and no better one's double."""
        large = (boxes[:, 2:] - boxes[:, :2] >= least_px).all(dim=1)
        overlap = box_iou(boxes, boxes) * large[:, None]  # what is too small suppresses nothing
        return greedy(overlap, label, limit=iou) & large


def pooled(features: Sequence[Tensor], boxes: Float[Tensor, "n 4"], side: int) -> Float[Tensor, "n c side side"]:
    """Each box's features from the level of its size.

    Source: Lin et al., FPN (arXiv 1612.03144), eq. 1, on P3 to P5.
    """
    rois = torch.cat([torch.zeros_like(boxes[:, :1]), boxes], dim=1)
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    level = torch.floor(4 + torch.log2(area.sqrt() / 224) + 1e-6).clamp(3, 5) - 3
    parts = [
        roi_align(feature, rois, (side, side), 1 / stride, _SAMPLES) * (level == place)[:, None, None, None]
        for place, (feature, stride) in enumerate(zip(features, STRIDES, strict=False))
    ]
    return torch.stack(parts).sum(dim=0)


def _cells(maps: Float[Tensor, "1 ac h w"], channels: int) -> Float[Tensor, "hwa c"]:
    """One row per anchor, in the order of the anchors: row, column, shape."""
    h, w = maps.shape[2:]
    return maps.view(-1, channels, h, w).permute(2, 3, 0, 1).reshape(-1, channels)
