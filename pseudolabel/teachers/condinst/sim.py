"""SIM: pseudo masks of a moving average, corrected by a map of the pictures' semantics, and objects pasted elsewhere.

Prototypes of every class follow the moving average's features under its pseudo masks. A cell that lies near one of a
class's prototypes is probably of that class, whatever an instance's own mask says; both opinions make the pseudo mask,
which leaves open what they do not agree about.

What the paper leaves open is decided so. The map is made of the moving average's features and not the student's, as the
masks that it corrects; it is taught by these from the first step on, and used as soon as a class was seen. Cells go to
the prototype with the largest part of the plan, without noise. Cells outside a box are surely not the object: dice
counts them, and cross-entropy the cells of the box alone, which would else be few among many. Pasted objects and those
they cover are learned in one pass; the pasted ones weigh `paste_weight` in place of `pixel_weight`. Tutors leave the
bank, which holds 80, when they are used, as BoxSeg's do; a tutor's score is that of its mask. The momentum of the
prototypes rises to its end, or a short training would be over before they left their random start. The loss is the
paper's; the released code has a focal one, of probabilities taken for logits.

Source: SIM (arXiv 2303.08578). With the Quality-Aware Module: BoxSeg (arXiv 2504.05137), table 6.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from pseudolabel.condinst.batch import STRIDE, Batch
from pseudolabel.condinst.mask_head import FEATURE_STRIDE, aligned_upsample
from pseudolabel.condinst.network import CondInst, Features
from pseudolabel.losses.boxes import box_cells, box_masks, dice_loss
from pseudolabel.teachers.condinst.boxinst import Instances
from pseudolabel.teachers.condinst.boxseg import BoxSeg
from pseudolabel.teachers.condinst.boxteacher import mean_of_taught
from pseudolabel.teachers.condinst.config import SimConfig
from pseudolabel.teachers.condinst.copy_paste import PseudoMasks
from pseudolabel.teachers.condinst.prototypes import PrototypeRule, Prototypes

SURE_OBJECT = (0.7, 0.8)  # least value of what is surely the object: between these two
SURE_GROUND = 0.4  # below it a cell is surely not the object


class Sim(BoxSeg):
    """BoxInst with SIM's teacher; its masks of the objects are those of SIM or of BoxSeg, by `ranking`.

    In its pseudo masks more than 0.5 is the object, 0 is not, and what lies between is not known.
    """

    config: SimConfig

    def __init__(self, network: CondInst, config: SimConfig) -> None:
        super().__init__(network, config)
        rule = PrototypeRule(
            per_class=config.prototypes,
            momentum=config.prototype_momentum,
            ramp=config.ema_ramp,
            epsilon=config.sinkhorn_epsilon,
            iterations=config.sinkhorn_iterations,
        )
        self.prototypes = Prototypes(network.num_classes, network.config.mask_features, rule)

    def pseudo_masks(self, features: Features, batch: Batch, index: int) -> PseudoMasks:
        """One image's masks, corrected by the semantic map; their scores are those of the masks before."""
        own, targets = super().pseudo_masks(features, batch, index), batch.targets[index]
        labels = self._labels(targets.labels)
        inside = box_masks(box_cells(targets.boxes, batch.grid_hw, stride=STRIDE), batch.grid_hw)
        share = torch.where(self.prototypes.known[labels], self.config.instance_share, 1.0)[:, None, None]
        mixed = share * own.soft + (1 - share) * self.semantic_map(features.masks[index : index + 1])[0, labels]
        there = own.quality > 0
        soft = self_corrected(mixed, own.soft, inside & there[:, None, None])
        quality = own.quality * (soft > 0.5).flatten(1).any(dim=1)
        return PseudoMasks(soft, quality, own.box_score)

    def semantic_map(self, features: Float[Tensor, "b d h8 w8"]) -> Float[Tensor, "b c h w"]:
        """How probably every cell is of every class: sigma(largest cosine / temperature)."""
        near = self.prototypes.nearest(unit_cells(features).transpose(0, 1)).transpose(0, 1)
        return (near / self.config.map_temperature).sigmoid()

    def _labels(self, labels: Int[Tensor, "n"]) -> Int[Tensor, "n"]:
        return labels if self.network.num_classes > 1 else torch.zeros_like(labels)

    def _follow(self, features: Features, batch: Batch, pseudo: list[PseudoMasks]) -> None:
        """The prototypes move towards what the pseudo masks call objects."""
        if self.config.instance_share == 1:
            return
        of_object, row, column = torch.cat([one.masks for one in pseudo]).nonzero(as_tuple=True)
        count = torch.tensor([len(one.quality) for one in pseudo], device=row.device)
        image = torch.repeat_interleave(torch.arange(len(pseudo), device=row.device), count)[of_object]
        cells = unit_cells(features.masks)[image, :, row, column]
        self.prototypes.update(cells, self._labels(torch.cat([one.labels for one in batch.targets]))[of_object])

    def _pixel_losses(self, instances: Instances, told: PseudoMasks) -> dict[str, Tensor]:
        """Cross-entropy and dice with what is known of each instance's pseudo mask, pasted ones apart.

        Masks of the Quality-Aware Module weigh as much as they are good; SIM's own weigh the same.
        """
        config = self.config
        loss = known_mask_loss(instances.logits, told.soft, instances.cells)
        weight = told.quality if config.ranking == "bqr" else (told.quality > 0).to(loss)
        assert told.pasted is not None
        losses = {"pixel": config.pixel_weight * mean_of_taught(loss, weight * ~told.pasted)}
        if config.copy_paste:
            losses["paste"] = config.paste_weight * mean_of_taught(loss, weight * told.pasted)
        return losses

    def _edge_features(self, instances: Instances) -> Tensor | None:
        return unit_cells(instances.features) if self.config.alike_features else None


def unit_cells(features: Float[Tensor, "b d h8 w8"]) -> Float[Tensor, "b d h w"]:
    """The mask branch's features on the mask grid, of unit length."""
    return F.normalize(aligned_upsample(features.float(), FEATURE_STRIDE // STRIDE), dim=1)


def self_corrected(
    mixed: Float[Tensor, "n h w"], own: Float[Tensor, "n h w"], inside: Bool[Tensor, "n h w"]
) -> Float[Tensor, "n h w"]:
    """Pseudo masks in which more than 0.5 is the object, 0 is not, and what lies between is not known.

    The object's limit leaves as many cells of `mixed` above it as `own` has above 0.7, but lies between 0.7 and 0.8.

    Args:
        mixed: the instance's and the semantic map's opinion in one.
        own: the instance's alone.
        inside: the object's box; False everywhere where there is no mask.

    Source: SIM's released code; the paper has two thresholds and does not tell them.
    """
    in_box = torch.where(inside, mixed, 0.0).flatten(1)
    count = ((own > SURE_OBJECT[0]) & inside).flatten(1).sum(dim=1)
    ranked = in_box.sort(dim=1, descending=True).values
    limit = ranked.gather(1, (count - 1).clamp(min=0)[:, None]).clamp(*SURE_OBJECT)[:, :, None]
    limit = torch.where(count[:, None, None] > 0, limit, SURE_OBJECT[1])
    return ((mixed - SURE_GROUND) / (limit - SURE_GROUND) / 2).clamp(0, 1) * inside


def known_mask_loss(
    logits: Float[Tensor, "n h w"], soft: Float[Tensor, "n h w"], cells: Int[Tensor, "n 4"]
) -> Float[Tensor, "n"]:
    """Mean cross-entropy over the known cells of the box, plus dice over all known cells.

    Args:
        soft: of `self_corrected`.
        cells: the instances' boxes.
    """
    truth = soft > 0.5
    known = (truth | (soft == 0)).float()
    counted = known * box_masks(cells, (logits.shape[1], logits.shape[2]))
    entropy = F.binary_cross_entropy_with_logits(logits, truth.float(), reduction="none")
    mean = (entropy * counted).flatten(1).sum(dim=1) / counted.flatten(1).sum(dim=1).clamp(min=1)
    return mean + dice_loss(logits.sigmoid(), truth.float(), known)
