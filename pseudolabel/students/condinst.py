"""CondInst as a student: the teachers' network, trained on masks by their weight and on boxes where there is no mask.

Source: CondInst (arXiv 2003.05664); the weighted mask loss is BoxSeg's (arXiv 2504.05137), eq. 1.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torchvision.ops import batched_nms, clip_boxes_to_image

from pseudolabel.condinst.assignment import top_positives
from pseudolabel.condinst.batch import STRIDE, Targets
from pseudolabel.condinst.config import CondInstConfig
from pseudolabel.condinst.fcos import Dense
from pseudolabel.condinst.fcos_losses import Assigned, assign_batch, detection_losses
from pseudolabel.condinst.mask_head import aligned_upsample
from pseudolabel.condinst.network import CondInst, Features
from pseudolabel.losses.boxes import (
    box_cells,
    box_windows,
    color_edges,
    dice_loss,
    lab_cells,
    pairwise_loss,
    projection_loss,
    valid_cells,
)
from pseudolabel.students.base import Instances, Student, StudentConfig, sure_share
from pseudolabel.students.data import StudentBatch
from pseudolabel.training.processes import normaliser

NMS_IOU = 0.6
CANDIDATES = 1000  # before suppression
NEVER = -100.0  # a logit whose loss and gradient are zero


class CondInstStudent(Student):
    """FCOS with a dynamic mask head."""

    def __init__(self, config: StudentConfig, num_classes: int, backbone_weights: str = "none") -> None:
        super().__init__()
        self.config, self.num_classes = config, num_classes
        shape = CondInstConfig(
            backbone=config.backbone,
            backbone_weights=backbone_weights,
            channels=config.width,
            convs=config.convs,
            mask_branch_channels=max(config.width // 2, 16),
        )
        self.network = CondInst(shape, num_classes)

    def encoder(self) -> nn.Module:
        return self.network.pyramid.encoder

    def fixed_parts(self) -> list[nn.Module]:
        return [self.network.pyramid, self.network.mask_branch]

    def losses(self, batch: StudentBatch) -> dict[str, Float[Tensor, ""]]:
        features = self.network(batch.images)
        targets = tuple(Targets(one.boxes, one.labels) for one in batch.samples)
        centres = [mask_centres(one.masks, one.boxes, one.has_mask) for one in batch.samples]
        assigned = assign_batch(features.dense, targets, centres, finest_px=self.config.finest_px)
        silenced = silence_ignored(features.dense, assigned, [one.ignored for one in batch.samples])
        return detection_losses(silenced, assigned) | self._mask_losses(features, assigned, batch)

    def _mask_losses(self, features: Features, assigned: Assigned, batch: StudentBatch) -> dict[str, Tensor]:
        """Sums over the objects with a mask and those without, each divided by the number of all: few boxes among many
        masks weigh no more than few masks would.
        """
        dense = features.dense
        score = dense.logits.detach().sigmoid().amax(dim=2) * dense.centerness.detach().sigmoid()
        chosen = top_positives(score[assigned.image, assigned.location], assigned.owner, assigned.image)
        owner = assigned.owner[chosen]
        has_mask = torch.cat([one.has_mask for one in batch.samples])[owner]
        count = normaliser(torch.tensor(len(chosen), device=score.device))
        if not len(chosen):
            return self._untrained(features)
        logits = self.network.mask_logits(features, assigned.image[chosen], assigned.location[chosen])
        parts = [sure_share(one.masks, one.unsure, covered_share) for one in batch.samples]
        masks, sure = (torch.cat(planes)[owner] for planes in zip(*parts, strict=True))
        weights = torch.cat([one.weights for one in batch.samples])[owner]
        boxes = torch.cat([one.boxes for one in batch.samples])[owner]
        dice = weights * dice_loss(logits.sigmoid(), masks, sure)
        cells = box_cells(boxes, (logits.shape[1], logits.shape[2]), stride=STRIDE)
        alone, image = ~has_mask, assigned.image[chosen]
        return {
            "mask": (dice * has_mask).sum() / count,
            "projection": (projection_loss(logits, cells) * alone).sum() / count,
            "pairwise": alone.sum() / count * _pairwise(logits[alone], cells[alone], image[alone], batch),
        }

    def _untrained(self, features: Features) -> dict[str, Tensor]:
        """Losses of 0 that still reach every parameter, as training on several GPUs demands."""
        zero = 0 * (features.masks.sum() + sum(one.sum() for one in self.network.head.controller.parameters()))
        return {"mask": zero, "projection": zero, "pairwise": zero}

    @torch.no_grad()
    def detect(self, images: Float[Tensor, "b 3 H W"], sizes_hw: Sequence[tuple[int, int]]) -> list[Instances]:
        features: Features = self.network(images)
        return [self._instances(features, place, size_hw) for place, size_hw in enumerate(sizes_hw)]

    def _instances(self, features: Features, place: int, size_hw: tuple[int, int]) -> Instances:
        dense = features.dense
        found = suppressed(dense, place, size_hw, self.config)
        location, label, score, boxes = found
        logits = self.network.mask_logits(features, torch.full_like(location, place), location)
        masks = full_masks(logits)[:, : size_hw[0], : size_hw[1]]
        seen = masks.flatten(1).any(dim=1)
        return Instances(boxes[seen], label[seen], score[seen], masks[seen])


def _pairwise(
    logits: Float[Tensor, "n h w"], cells: Int[Tensor, "n 4"], image: Int[Tensor, "n"], batch: StudentBatch
) -> Float[Tensor, ""]:
    """BoxInst's colour loss of objects with a box alone (arXiv 2012.02310, section 3.2), 0 where there is none."""
    if not len(logits):
        return logits.sum()
    grid_hw = (logits.shape[1], logits.shape[2])
    sizes_hw = torch.tensor(batch.sizes_hw, device=logits.device)
    edges = color_edges(lab_cells(batch.images, stride=STRIDE), valid_cells(sizes_hw, grid_hw, stride=STRIDE))
    return pairwise_loss(logits, box_windows(cells, image, grid_hw), edges)


def full_masks(logits: Float[Tensor, "n h w"]) -> Bool[Tensor, "n H W"]:
    """Stride-4 logits as masks of the input's pixels."""
    if not len(logits):
        return torch.zeros(0, logits.shape[1] * STRIDE, logits.shape[2] * STRIDE, dtype=torch.bool)
    return aligned_upsample(logits[None], STRIDE)[0] > 0


def covered_share(masks: Float[Tensor, "n H W"]) -> Float[Tensor, "n h w"]:
    """How much of the 4 x 4 px around the centre of every fourth pixel from the third on is covered.

    The reference code takes that one pixel; the share says more about a thin object, and `aligned_upsample` reads it
    back at the same place.
    """
    line = torch.tensor([0.5, 1, 1, 1, 0.5], device=masks.device) / STRIDE
    planes = nn.functional.pad(masks[:, None], (0, 1, 0, 1))
    return nn.functional.conv2d(planes, torch.outer(line, line)[None, None], stride=STRIDE)[:, 0]


def mask_centres(
    masks: Bool[Tensor, "n h w"], boxes: Float[Tensor, "n 4"], has_mask: Bool[Tensor, "n"]
) -> Float[Tensor, "n 2"]:
    """Centre of mass (x, y) of every mask, the box's middle where there is no mask."""
    middle = (boxes[:, :2] + boxes[:, 2:]) / 2
    area = masks.sum(dim=(1, 2)).float()
    x = torch.arange(masks.shape[2], device=masks.device) + 0.5
    y = torch.arange(masks.shape[1], device=masks.device) + 0.5
    mass = torch.stack([masks.sum(dim=1).float() @ x, masks.sum(dim=2).float() @ y], dim=1)
    return torch.where((has_mask & (area > 0))[:, None], mass / area[:, None].clamp(min=1), middle)


def silence_ignored(dense: Dense, assigned: Assigned, ignored: Sequence[Bool[Tensor, "H W"]]) -> Dense:
    """The same outputs, with class logits that cost nothing at locations that are ignored and speak for no object."""
    x, y = dense.locations.xy.long().unbind(dim=1)
    planes = torch.stack(list(ignored))
    silent = planes[:, y.clamp(max=planes.shape[1] - 1), x.clamp(max=planes.shape[2] - 1)]
    silent[assigned.image, assigned.location] = False
    return replace(dense, logits=dense.logits.masked_fill(silent[..., None], NEVER))


def suppressed(
    dense: Dense, place: int, size_hw: tuple[int, int], config: StudentConfig
) -> tuple[Int[Tensor, "n"], Int[Tensor, "n"], Float[Tensor, "n"], Float[Tensor, "n 4"]]:
    """Location, label, score and box of one image's objects after suppression within each class, best first.

    The least score is of the class times the centerness; what is reported is its root, as in FCOS.
    """
    product = dense.logits[place].sigmoid() * dense.centerness[place].sigmoid()[:, None]
    score = product.flatten()
    best = score.argsort(descending=True, stable=True)[:CANDIDATES]
    best = best[score[best] > config.least_score]
    location = torch.div(best, dense.logits.shape[2], rounding_mode="floor")
    label = best % dense.logits.shape[2]
    boxes = clip_boxes_to_image(dense.boxes_xyxy()[place, location], size_hw)
    kept = batched_nms(boxes, score[best], label, NMS_IOU)[: config.detections]
    return location[kept], label[kept], score[best][kept].sqrt(), boxes[kept]
