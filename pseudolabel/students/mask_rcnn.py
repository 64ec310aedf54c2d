"""torchvision's Mask R-CNN as a student: its parts as they are, except for what is ignored and for the masks' weights.

Source: Mask R-CNN (arXiv 1703.06870).
"""

from collections import OrderedDict
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.roi_heads import RoIHeads, fastrcnn_loss, paste_masks_in_image, project_masks_on_boxes
from torchvision.models.detection.rpn import RegionProposalNetwork
from torchvision.ops import MultiScaleRoIAlign

from pseudolabel.condinst.pyramid import STRIDES, Pyramid
from pseudolabel.encoders.build import build_encoder
from pseudolabel.students.base import Instances, Student, StudentConfig, ignored_share, mean_entropy, sure_share
from pseudolabel.students.data import Sample, StudentBatch
from pseudolabel.training.processes import normaliser

MOSTLY = 0.5  # a box of which this share is ignored is no background
_ANCHOR_SIZES = tuple((2 * stride, round(2 * 2**0.5 * stride)) for stride in STRIDES)
_RATIOS = (0.5, 1.0, 2.0)

Target = dict[str, Tensor]


class MaskRcnnStudent(Student):
    """Region proposals, boxes with classes, and a 28 x 28 mask for each."""

    def __init__(self, config: StudentConfig, num_classes: int, backbone_weights: str = "none") -> None:
        super().__init__()
        self.config, self.num_classes = config, num_classes
        self.pyramid = _NamedPyramid(Pyramid(build_encoder(config.backbone, backbone_weights), config.width))
        parts = _torchvision_parts(self.pyramid, config, num_classes)
        parts.rpn.__class__ = _Proposals
        parts.roi_heads.__class__ = _Heads
        self.proposals: _Proposals = parts.rpn
        self.heads: _Heads = parts.roi_heads

    def encoder(self) -> nn.Module:
        return self.pyramid.pyramid.encoder

    def find_at_most(self, detections: int) -> None:
        super().find_at_most(detections)
        self.heads.detections_per_img = detections

    def find_from(self, least_score: float) -> None:
        super().find_from(least_score)
        self.heads.score_thresh = least_score

    def fixed_parts(self) -> list[nn.Module]:
        return [self.pyramid.pyramid]

    def losses(self, batch: StudentBatch) -> dict[str, Float[Tensor, ""]]:
        features = self.pyramid(batch.images)
        targets = [_target(sample) for sample in batch.samples]
        images = _image_list(batch.images, batch.sizes_hw)
        boxes, losses = self.proposals(images, features, targets)
        rois = self.heads.select_training_samples(boxes, targets)
        return {
            "objectness": losses["loss_objectness"],
            "proposal_box": losses["loss_rpn_box_reg"],
            **self._box_losses(features, rois, batch.sizes_hw),
            "mask": self._mask_loss(features, rois, targets, batch.sizes_hw),
        }

    def _box_losses(self, features: Any, rois: "_Rois", sizes_hw: list[tuple[int, int]]) -> dict[str, Tensor]:
        proposals, _, labels, regression = rois
        pooled = self.heads.box_head(self.heads.box_roi_pool(features, proposals, sizes_hw))
        logits, deltas = self.heads.box_predictor(pooled)
        if not len(logits):
            return {"class": logits.sum() * 0, "box": deltas.sum() * 0}
        classification, box = fastrcnn_loss(logits, deltas, labels, regression)
        return {"class": classification, "box": box}

    def _mask_loss(
        self, features: Any, rois: "_Rois", targets: list[Target], sizes_hw: list[tuple[int, int]]
    ) -> Float[Tensor, ""]:
        """Mean over the regions with a usable mask of its weight times the mean cross-entropy of its class's mask."""
        boxes, owners, labels = _regions_with_masks(rois, targets)
        regions = normaliser(torch.tensor(sum(len(one) for one in boxes), device=boxes[0].device))
        if not sum(len(one) for one in boxes):
            unused = [*self.heads.mask_head.parameters(), *self.heads.mask_predictor.parameters()]
            return 0 * torch.stack([one.sum() for one in unused]).sum()
        pooled = self.heads.mask_roi_pool(features, boxes, sizes_hw)
        logits = self.heads.mask_predictor(self.heads.mask_head(pooled))
        place = torch.cat(labels)
        own = logits[torch.arange(len(place), device=place.device), place]
        side = logits.shape[-1]
        parts = [
            sure_share(target["masks"], target["unsure"], partial(_on_boxes, box, owner, side))
            for target, box, owner in zip(targets, boxes, owners, strict=True)
        ]
        truth, sure = (torch.cat(planes) for planes in zip(*parts, strict=True))
        weights = torch.cat([target["weights"][owner] for target, owner in zip(targets, owners, strict=True)])
        entropy = mean_entropy(own, truth, sure)
        return (weights * entropy).sum() / regions

    @torch.no_grad()
    def detect(self, images: Float[Tensor, "b 3 H W"], sizes_hw: Sequence[tuple[int, int]]) -> list[Instances]:
        features = self.pyramid(images)
        boxes, _ = self.proposals(_image_list(images, sizes_hw), features)
        found, _ = self.heads(features, boxes, list(sizes_hw))
        return [_instances(one, size_hw) for one, size_hw in zip(found, sizes_hw, strict=True)]


class _NamedPyramid(nn.Module):
    """P3 to P7 under the names that torchvision's pooling looks for."""

    def __init__(self, pyramid: Pyramid) -> None:
        super().__init__()
        self.pyramid = pyramid
        self.out_channels = pyramid.fpn.layer_blocks[0][0].out_channels

    def forward(self, images: Float[Tensor, "b 3 H W"]) -> OrderedDict[str, Tensor]:
        return OrderedDict((str(level), feature) for level, feature in enumerate(self.pyramid(images)))


class _Proposals(RegionProposalNetwork):
    """Proposals for which anchors over ignored pixels are no background."""

    def assign_targets_to_anchors(
        self, anchors: list[Tensor], targets: list[Target]
    ) -> tuple[list[Tensor], list[Tensor]]:
        labels, boxes = super().assign_targets_to_anchors(anchors, targets)
        for label, anchor, target in zip(labels, anchors, targets, strict=True):
            label[(label == 0) & (ignored_share(anchor, target["ignored"]) > MOSTLY)] = -1
        return labels, boxes

    def compute_loss(
        self, objectness: Tensor, deltas: Tensor, labels: list[Tensor], regression: list[Tensor]
    ) -> tuple[Tensor, Tensor]:
        if all(bool((label < 0).all()) for label in labels):  # torchvision would take the mean of nothing
            return objectness.sum() * 0, deltas.sum() * 0
        losses: tuple[Tensor, Tensor] = super().compute_loss(objectness, deltas, labels, regression)
        return losses


_Rois = tuple[list[Tensor], list[Tensor], list[Tensor], list[Tensor]]  # proposals, owners, labels, box deltas


class _Heads(RoIHeads):
    """Heads for which regions over ignored pixels are no background."""

    def select_training_samples(self, proposals: list[Tensor], targets: list[Target] | None) -> _Rois:
        self._ignored = [target["ignored"] for target in targets or ()]
        rois: _Rois = super().select_training_samples(proposals, targets)
        return rois

    def assign_targets_to_proposals(
        self, proposals: list[Tensor], gt_boxes: list[Tensor], gt_labels: list[Tensor]
    ) -> tuple[list[Tensor], list[Tensor]]:
        owners, labels = super().assign_targets_to_proposals(proposals, gt_boxes, gt_labels)
        for label, box, ignored in zip(labels, proposals, self._ignored, strict=True):
            label[(label == 0) & (ignored_share(box, ignored) > MOSTLY)] = -1
        return owners, labels


def _torchvision_parts(pyramid: _NamedPyramid, config: StudentConfig, num_classes: int) -> MaskRCNN:
    """The whole model, of which the proposal network and the heads are used; images are resized and padded by us.

    At a width of 256 the heads are as wide as torchvision's own.
    """
    levels, width = [str(level) for level in range(3)], config.width
    return MaskRCNN(
        pyramid,
        rpn_anchor_generator=AnchorGenerator(_ANCHOR_SIZES, (_RATIOS,) * len(STRIDES)),
        rpn_pre_nms_top_n_train=1000,
        rpn_post_nms_top_n_train=1000,
        rpn_post_nms_top_n_test=500,
        box_roi_pool=MultiScaleRoIAlign(levels, 7, 2),
        box_head=TwoMLPHead(49 * width, 4 * width),
        box_predictor=FastRCNNPredictor(4 * width, num_classes + 1),
        mask_roi_pool=MultiScaleRoIAlign(levels, 14, 2),
        mask_head=MaskRCNNHeads(width, (width,) * config.convs, 1),
        mask_predictor=MaskRCNNPredictor(width, width, num_classes + 1),
        box_batch_size_per_image=256,
        box_score_thresh=config.least_score,
        box_detections_per_img=config.detections,
    )


def _image_list(images: Tensor, sizes_hw: Sequence[tuple[int, int]]) -> ImageList:
    return ImageList(images, list(sizes_hw))


def _target(sample: Sample) -> Target:
    return {
        "boxes": sample.boxes,
        "labels": sample.labels + 1,
        "masks": sample.masks,
        "unsure": sample.unsure,
        "has_mask": sample.has_mask,
        "weights": sample.weights,
        "ignored": sample.ignored,
    }


def _regions_with_masks(rois: _Rois, targets: list[Target]) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """Boxes, owners and labels of the positive regions of each image whose object has a usable mask."""
    boxes, owners, labels = [], [], []
    for box, owner, label, target in zip(*rois[:3], targets, strict=True):
        positive = (label > 0).nonzero()[:, 0]
        chosen = positive[target["has_mask"][owner[positive]]]
        boxes.append(box[chosen])
        owners.append(owner[chosen])
        labels.append(label[chosen])
    return boxes, owners, labels


def _on_boxes(boxes: Tensor, owners: Tensor, side: int, planes: Tensor) -> Tensor:
    """The planes of the boxes' owners, each box as a square of that many cells."""
    squares: Tensor = project_masks_on_boxes(planes, boxes, owners, side)
    return squares


def _instances(found: dict[str, Tensor], size_hw: tuple[int, int]) -> Instances:
    masks = _pasted(found["masks"], found["boxes"], size_hw)
    seen = masks.flatten(1).any(dim=1)
    return Instances(found["boxes"][seen], found["labels"][seen] - 1, found["scores"][seen], masks[seen])


def _pasted(masks: Tensor, boxes: Tensor, size_hw: tuple[int, int]) -> Bool[Tensor, "n h w"]:
    if not len(masks):
        return torch.zeros(0, *size_hw, dtype=torch.bool, device=masks.device)
    planes: Tensor = paste_masks_in_image(masks, boxes, size_hw)
    return planes[:, 0] > 0.5
