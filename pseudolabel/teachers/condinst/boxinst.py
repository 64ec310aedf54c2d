"""BoxInst: CondInst whose masks are learned from boxes; and the same network with true masks, as the reference.

Source: Tian et al., BoxInst (arXiv 2012.02310); Tian et al., CondInst (arXiv 2003.05664). Other losses for the same
network: `losses.regions`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor
from torch.nn import functional as F

from pseudolabel.condinst.assignment import top_positives
from pseudolabel.condinst.batch import STRIDE, Batch, Targets
from pseudolabel.condinst.fcos_losses import Assigned, assign_batch, detection_losses
from pseudolabel.condinst.mask_head import aligned_upsample
from pseudolabel.condinst.network import CondInst, Features
from pseudolabel.encoders.encoder import freeze_early
from pseudolabel.errors import InputError
from pseudolabel.losses.boxes import (
    Windows,
    bottom_margin,
    box_cells,
    box_windows,
    color_edges,
    dice_loss,
    lab_cells,
    pairwise_loss,
    projection_loss,
    true_pair_loss,
    valid_cells,
)
from pseudolabel.losses.regions import bag_loss, level_set_energy, smoothness_loss
from pseudolabel.teachers.condinst.config import BoxInstConfig
from pseudolabel.teachers.condinst.views import flipped, random_windows, scaled
from pseudolabel.training.method import Method


@dataclass(frozen=True, slots=True)
class Instances:
    """The sampled positives of a student's pass: one mask each, and the object that it is to become."""

    logits: Float[Tensor, "p h w"]
    owner: Int[Tensor, "p"]  # the object, numbered over the batch
    image: Int[Tensor, "p"]
    cells: Int[Tensor, "p 4"]  # the object's box on the mask grid
    features: Float[Tensor, "b c H W"]  # the mask branch's, of the whole batch, without gradient


COLOUR_SPREAD = 58.0  # levels: what the level set's energy counts as one, a photograph's usual spread


class BoxInst(Method):
    """The network with the losses of `BoxInstConfig`.

    A network of one class learns every object as of that class, whatever its label says.
    """

    def __init__(self, network: CondInst, config: BoxInstConfig) -> None:
        super().__init__()
        self.config = config
        self.network = network.to(memory_format=torch.channels_last)  # what convolutions on CPU and GPU are fastest in
        if config.freeze and config.backbone_weights != "none":
            freeze_early(network.pyramid.encoder)
        self._shown: Batch | None = None

    def losses(self, batch: Batch, *, progress: float) -> Mapping[str, Tensor]:
        batch = scaled(self._weak_view(batch), self._scale())
        features = self.network(batch.images)
        assigned = self._assign(features, batch)
        instances = self._instances(features, batch, assigned)
        return self._detection(features, assigned) | self._supervised(instances, batch, progress)

    def _weak_view(self, batch: Batch) -> Batch:
        if not batch.targets:
            raise ValueError("a batch to train on needs targets")
        if self._shown is None:
            self._shown = batch
        if self.config.window_px:
            batch = random_windows(batch, self.config.window_px)
        device = batch.images.device
        flip = torch.rand(len(batch.images), device=device) < 0.5
        return flipped(batch, flip) if self.config.flip else batch

    def _scale(self) -> float:
        """The size that this step learns at, relative to the weak view's."""
        scales = self.config.scales
        return scales[int(torch.randint(len(scales), ()))] if scales else 1.0

    def _assign(self, features: Features, batch: Batch) -> Assigned:
        centres = None
        if self.config.supervision == "masks":
            centres = [_mass_centres(one) for one in batch.targets]
        targets = batch.targets if self.network.num_classes > 1 else tuple(map(_of_one_class, batch.targets))
        return assign_batch(features.dense, targets, centres, finest_px=self.config.finest_px)

    def _detection(self, features: Features, assigned: Assigned) -> dict[str, Tensor]:
        return detection_losses(
            features.dense,
            assigned,
            varifocal=self.config.classification == "varifocal",
            varifocal_alpha=self.config.varifocal_alpha,
        )

    def _instances(self, features: Features, batch: Batch, assigned: Assigned) -> Instances:
        dense = features.dense
        score = dense.logits[assigned.image, assigned.location].detach().amax(dim=1).sigmoid()
        score = score * dense.centerness[assigned.image, assigned.location].detach().sigmoid()
        chosen = top_positives(score, assigned.owner, assigned.image, per_image=self.config.positives)
        image, owner = assigned.image[chosen], assigned.owner[chosen]
        logits = self.network.mask_logits(features, image, assigned.location[chosen])
        boxes = torch.cat([one.boxes for one in batch.targets])
        cells = box_cells(boxes[owner], batch.grid_hw, stride=STRIDE)
        return Instances(logits, owner, image, cells, features.masks.detach())

    def _supervised(self, instances: Instances, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Mask losses from what the data say: true masks, boxes, or each where it is there."""
        if self.config.supervision == "boxes":
            return self._box_losses(instances, batch, progress)
        masks, has_mask = _true_masks(batch, needed=self.config.supervision == "masks")
        by_mask = has_mask[instances.owner]
        mask = {
            "mask": self._mask_loss(_those(instances, by_mask), masks, batch) * by_mask.sum() / max(len(by_mask), 1)
        }
        if self.config.supervision == "masks":
            return mask
        share = (~by_mask).float().mean() if len(by_mask) else 1.0  # each instance weighs the same, whatever teaches it
        boxes = self._box_losses(_those(instances, ~by_mask), batch, progress)
        return mask | {name: share * value for name, value in boxes.items()}

    def _mask_loss(self, instances: Instances, masks: Tensor, batch: Batch) -> Tensor:
        """Mean over the instances; 0 where there is none."""
        count, truth = max(len(instances.owner), 1), masks[instances.owner]
        if self.config.mask_loss == "dice":
            return dice_loss(instances.logits.sigmoid(), truth.float()).sum() / count
        pairs = true_pair_loss(instances.logits, self._windows(instances, batch), truth)
        return pairs + projection_loss(instances.logits, instances.cells).sum() / count

    def _box_losses(self, instances: Instances, batch: Batch, progress: float) -> dict[str, Tensor]:
        config = self.config
        tied = bag_loss if config.box_loss == "mil" else projection_loss
        box = tied(instances.logits, instances.cells).sum() / max(len(instances.owner), 1)
        rise = risen(progress, config.pairwise_warmup)
        return {
            config.box_loss: config.projection_weight * box,
            config.shape_loss: config.pairwise_weight * rise * self._shape_loss(instances, batch),
        }

    def _shape_loss(self, instances: Instances, batch: Batch) -> Tensor:
        """What shapes masks in their boxes, by the mean over the instances or their edges."""
        config, count = self.config, max(len(instances.owner), 1)
        if config.shape_loss == "smoothness":
            return smoothness_loss(instances.logits, instances.cells).sum() / count
        if config.shape_loss == "levelset":
            of = instances.logits, instances.cells
            energies = [level_set_energy(*of, one, instances.image) for one in self._level_set_planes(instances, batch)]
            return torch.stack(energies).sum() / count
        edges = color_edges(
            lab_cells(batch.images, stride=STRIDE),
            self._valid(batch),
            tau=config.least_similarity,
            theta=config.theta,
            size=config.neighbourhood,
            dilation=config.dilation,
            features=self._edge_features(instances),
        )
        return pairwise_loss(instances.logits, self._windows(instances, batch), edges)

    def _edge_features(self, instances: Instances) -> Tensor | None:
        """What neighbours have to be alike in beside their colour: nothing, but a descendant may say."""
        del instances
        return None

    def _level_set_planes(self, instances: Instances, batch: Batch) -> list[Tensor]:
        """What regions should be alike in: colours; and features of one spread, if asked for."""
        colours = [F.avg_pool2d(batch.images, STRIDE) / COLOUR_SPREAD]
        if not self.config.deep_features:
            return colours
        features = aligned_upsample(instances.features, colours[0].shape[-1] // instances.features.shape[-1])
        spread = features.std(dim=(0, 2, 3), keepdim=True).clamp(min=1e-5)
        return [*colours, features / spread]

    def _windows(self, instances: Instances, batch: Batch) -> Windows:
        size, dilation = self.config.neighbourhood, self.config.dilation
        return box_windows(instances.cells, instances.image, batch.grid_hw, size=size, dilation=dilation)

    def _valid(self, batch: Batch) -> Tensor:
        margin = bottom_margin(batch.sizes_hw[:, 0], batch.original_heights, px=self.config.bottom_px)
        return valid_cells(batch.sizes_hw, batch.grid_hw, stride=STRIDE, bottom_px=margin)

    def parameter_groups(self) -> list[dict[str, Any]]:
        encoder = [one for one in self.network.pyramid.encoder.parameters() if one.requires_grad]
        known = {id(one) for one in encoder}
        rest = [one for one in self.network.parameters() if one.requires_grad and id(one) not in known]
        return [
            {"params": encoder, "lr": self.config.encoder_learning_rate},
            {"params": rest, "lr": self.config.learning_rate},
        ]

    def image_names(self, batch: Batch) -> Sequence[str]:
        return batch.names

    def trained_network(self) -> CondInst:
        """The network that is to be used: here the one that is trained."""
        return self.network

    def model_state(self) -> dict[str, Tensor]:
        return self.trained_network().state_dict()

    @torch.no_grad()
    def pictures(self) -> Mapping[str, UInt8[Tensor, "3 H W"]]:
        """The first batch's first image over the union of the masks that its boxes get."""
        if self._shown is None:
            return {}
        network = self.trained_network()
        batch, mode = self._shown, network.training
        network.eval()
        features = network(batch.images[:1])
        assigned = assign_batch(features.dense, batch.targets[:1], finest_px=self.config.finest_px)
        masks = network.mask_logits(features, assigned.image, assigned.location).sigmoid()
        network.train(mode)
        union = masks.amax(dim=0) if len(masks) else masks.new_zeros(batch.grid_hw)
        large = F.interpolate(union[None, None], size=batch.images.shape[2:], mode="bilinear")[0] * 255
        stacked = torch.cat([batch.images[0], large.expand(3, -1, -1)], dim=2)
        return {"masks": stacked.clamp(0, 255).to(torch.uint8).cpu()}


def _of_one_class(targets: Targets) -> Targets:
    return replace(targets, labels=torch.zeros_like(targets.labels))


def risen(progress: float, share: float) -> float:
    """Linear from 0 to 1 over the first `share` of the training; 0 before it."""
    if progress < 0:
        return 0.0
    return min(progress / share, 1.0) if share > 0 else 1.0


def _those(instances: Instances, keep: Tensor) -> Instances:
    return replace(
        instances,
        logits=instances.logits[keep],
        owner=instances.owner[keep],
        image=instances.image[keep],
        cells=instances.cells[keep],
    )


def _true_masks(batch: Batch, *, needed: bool) -> tuple[Tensor, Tensor]:
    """Masks of all objects on the grid, and which of them are there.

    Raises:
        InputError: an object has none, and every object needs one.
    """
    masks, present = [], []
    for one in batch.targets:
        if one.masks is None:
            masks.append(torch.zeros(len(one.boxes), *batch.grid_hw, dtype=torch.bool, device=one.boxes.device))
            present.append(torch.zeros(len(one.boxes), dtype=torch.bool, device=one.boxes.device))
        else:
            masks.append(one.masks)
            everyone = torch.ones(len(one.boxes), dtype=torch.bool, device=one.boxes.device)
            present.append(everyone if one.has_mask is None else one.has_mask)
    found = torch.cat(present)
    if needed and not bool(found.all()):
        raise InputError(f"{int((~found).sum())} objects of {', '.join(batch.names)} have no mask; this run needs them")
    return torch.cat(masks), found


def _mass_centres(targets: Targets) -> Float[Tensor, "n 2"]:
    """Centres of mass of the masks in pixels; the box's middle where a mask is empty or not there."""
    middle = (targets.boxes[:, :2] + targets.boxes[:, 2:]) / 2
    if targets.masks is None:
        return middle
    weight = targets.masks.float()
    area = weight.sum(dim=(1, 2))
    row = torch.arange(weight.shape[1], device=weight.device) * STRIDE + STRIDE // 2
    column = torch.arange(weight.shape[2], device=weight.device) * STRIDE + STRIDE // 2
    x = (weight.sum(dim=1) * column).sum(dim=1) / area.clamp(min=1)
    y = (weight.sum(dim=2) * row).sum(dim=1) / area.clamp(min=1)
    return torch.where(area[:, None] > 0, torch.stack([x, y], dim=1), middle)
