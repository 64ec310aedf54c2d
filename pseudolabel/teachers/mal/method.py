"""The box-conditioned teacher: the given box is the prompt, boxes are all that it learns from.

Losses on the crop's stride-4 grid: projection and pairwise colour (BoxInst); the outside of the box as background; the
masks of drawn objects over crops (`drawn`), or without them an ellipse in the middle of the box as foreground, which
fades as the pairwise loss rises; in later rounds the masks of the round before, some of them with another object over
it (`paste`); and in the later part of the training a moving average of the network as teacher, whose masks the network
is to repeat as far as their quality goes (dice weighted by quality, and affinity, as BoxTeacher and BoxSeg have them).

The idea is Mask Auto-Labeler's (Lan et al., CVPR 2023), with the losses of this project's other teachers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor
from torch.nn import functional as F

from pseudolabel.losses.boxes import (
    affinity_loss,
    box_cells,
    box_masks,
    box_windows,
    color_edges,
    dice_loss,
    image_edge_weights,
    lab_cells,
    projection_loss,
    scale_by_instance,
    sum_by_instance,
    weighted_pair_loss,
)
from pseudolabel.teachers.mal.config import MalConfig
from pseudolabel.teachers.mal.crops import CropBatch, Views, sample_views, take, widened
from pseudolabel.teachers.mal.drawn import Framing, drawn_crops
from pseudolabel.teachers.mal.field import mean_field
from pseudolabel.teachers.mal.network import MalNetwork, freeze_early
from pseudolabel.teachers.mal.paste import with_pastes
from pseudolabel.training.ema import average_of, momentum_at, update_average
from pseudolabel.training.method import Method

LEAST_ROOM_PX = 2.0
KNOWN_CLAIMS = 0.7  # share of the crops that are told of other objects' masks, where there are some
START_SHARE = 2 / 3  # sides of the ellipse that a training starts from, in sides of the box


class Mal(Method):
    """Network and moving average with the losses of `MalConfig`."""

    def __init__(self, network: MalNetwork, config: MalConfig) -> None:
        super().__init__()
        self.config = config
        self.network = network
        if config.freeze:
            freeze_early(network)
        self.average = average_of(network)
        self._shown: CropBatch | None = None

    def losses(self, batch: CropBatch, *, progress: float) -> Mapping[str, Tensor]:
        config = self.config
        views = self._training_views(batch)
        logits = self.network(_jittered(views.rgb, config.color_jitter), views.cues)
        target = _Target(views, logits.shape, config, batch.scores)
        risen = _rise(progress, 0, config.pairwise_warmup)
        losses = {
            "projection": projection_loss(logits, target.cells).mean(),
            "pairwise": config.pairwise_weight * risen * target.pairwise(logits),
            "outside": config.outside_weight * outside_loss(logits, target.own, views.valid).mean(),
        }
        if risen < 1 and not config.drawn:
            losses["start"] = (1 - risen) * start_loss(logits, target.cells).mean()
        if views.masks is not None and batch.scores is not None:
            known = labelled_loss(logits, views.masks, target.box * views.valid, batch.scores)
            losses["labels"] = config.label_weight * known
        if config.drawn:
            losses["drawn"] = config.drawn_weight * self._drawn(batch)
        share = _rise(progress, config.teacher_from, config.teacher_warmup)
        if share > 0:
            losses |= {name: share * value for name, value in self._taught(logits, views, target).items()}
        if self._shown is None:
            self._shown = take(batch, torch.arange(min(8, len(batch.boxes))), batch.boxes.device)
        return losses

    def _training_views(self, batch: CropBatch) -> Views:
        config, count = self.config, len(batch.boxes)
        device = batch.boxes.device
        room = config.room + config.room_jitter * _uniform(count, 1, device=device)
        rect = widened(batch.boxes, room.clamp(min=0.05), least_px=LEAST_ROOM_PX)
        side = batch.boxes[:, 2:] - batch.boxes[:, :2]
        shift = config.jitter * _uniform(count, 2, device=device) * side
        flip = torch.rand(count, device=device) < 0.5
        views = sample_views(_some_claims(batch), rect + torch.cat([shift, shift], dim=1), flip, config.crop_px)
        return with_pastes(views, batch.scores, probability=config.paste_probability)

    def _drawn(self, batch: CropBatch) -> Float[Tensor, ""]:
        """The loss of drawn objects over the batch's crops, with their masks."""
        config = self.config
        count = max(1, round(config.drawn * len(batch.boxes)))
        framing = Framing(config.room, config.room_jitter, config.jitter)
        drawn = drawn_crops(batch, count, config.crop_px, framing)
        logits = self.network(_jittered(drawn.rgb, config.color_jitter), drawn.cues)
        whole = torch.ones_like(drawn.masks)
        return labelled_loss(logits, drawn.masks, whole, whole[:, 0, 0])

    def _taught(self, logits: Tensor, views: Views, target: "_Target") -> dict[str, Tensor]:
        with torch.no_grad():
            taught = self.average(views.rgb, views.cues).sigmoid() * target.own
            if self.config.field_weight:
                field = self.config.field_weight
                taught = mean_field(taught, target.lab, views.valid, target.own, weight=field)
        masks = (taught > 0.5).float()
        quality = mask_quality(taught, target.cells)
        pixel = (quality * dice_loss(logits.sigmoid() * target.box, masks)).mean()
        affinity = affinity_loss(logits, target.windows, masks, views.valid, quality)
        return {"pixel": self.config.pixel_weight * pixel, "affinity": self.config.affinity_weight * affinity}

    def parameter_groups(self) -> list[dict[str, Any]]:
        encoder = {id(parameter) for parameter in self.network.encoder.parameters()}
        trained = [parameter for parameter in self.network.parameters() if parameter.requires_grad]
        return [
            {"params": [one for one in trained if id(one) in encoder], "lr": self.config.encoder_learning_rate},
            {"params": [one for one in trained if id(one) not in encoder], "lr": self.config.learning_rate},
        ]

    def image_names(self, batch: CropBatch) -> Sequence[str]:
        return batch.images

    def model_state(self) -> dict[str, Tensor]:
        return self.average.state_dict()

    def after_step(self, step: int) -> None:
        keep = momentum_at(step + 1, self.config.ema, ramp=1)  # half of the first step's weights are the beginning's
        update_average(self.average, self.network, keep, buffers="leave")

    @torch.no_grad()
    def pictures(self) -> Mapping[str, UInt8[Tensor, "3 H W"]]:
        """The first batch's first crops over the masks that the average gives them."""
        if self._shown is None:
            return {}
        batch = self._shown
        rect = widened(batch.boxes, self.config.room, least_px=LEAST_ROOM_PX)
        still = torch.zeros(len(rect), dtype=torch.bool, device=rect.device)
        views = sample_views(batch, rect, still, self.config.crop_px)
        masks = self.average(views.rgb, views.cues).sigmoid()
        large = F.interpolate(masks[:, None], size=views.rgb.shape[-2:], mode="bilinear") * 255
        rows = torch.cat([views.rgb, large.expand_as(views.rgb)], dim=2)
        return {"masks": torch.cat(list(rows), dim=2).clamp(0, 255).to(torch.uint8).cpu()}


class _Target:
    """What a batch of crops says about its masks."""

    def __init__(
        self, views: Views, shape: torch.Size, config: MalConfig, scores: Float[Tensor, "b"] | None = None
    ) -> None:
        count, *size = shape
        self.cells: Int[Tensor, "b 4"] = box_cells(views.box_in_crop, (size[0], size[1]))
        self.box: Float[Tensor, "b h w"] = box_masks(self.cells, (size[0], size[1])).float()
        # where the object may be seen
        self.own: Float[Tensor, "b h w"] = self.box if views.covered is None else self.box * (1 - views.covered)
        index = torch.arange(count, device=self.cells.device)
        self.windows = box_windows(self.cells, index, (size[0], size[1]), dilation=config.dilation)
        self.lab: Float[Tensor, "b 3 h w"] = lab_cells(views.rgb)
        edges = color_edges(
            self.lab, views.valid, tau=config.least_similarity, theta=config.theta, dilation=config.dilation
        )
        weights = image_edge_weights(edges, self.windows)
        share = 1 / sum_by_instance(weights, self.windows).clamp(min=1) / count
        if scores is not None:
            share = share * torch.where(scores > 0, config.labelled_pairwise, 1.0)
        self._edges = scale_by_instance(weights, share, self.windows)

    def pairwise(self, logits: Tensor) -> Float[Tensor, ""]:
        """The mean over the crops of each one's mean pair loss, so that a plain crop counts as much as a busy one."""
        return weighted_pair_loss(logits, self.windows, self._edges)


def _some_claims(batch: CropBatch) -> CropBatch:
    """The batch, of which some objects are not told of the others' masks: at a first look there are none."""
    if batch.claims is None:
        return batch
    known = torch.rand(len(batch.boxes), device=batch.boxes.device) < KNOWN_CLAIMS
    return replace(batch, claims=batch.claims * known[:, None, None])


def outside_loss(
    logits: Float[Tensor, "b h w"], box: Float[Tensor, "b h w"], valid: Bool[Tensor, "b h w"]
) -> Float[Tensor, "b"]:
    """Mean cross-entropy with background over the cells of the image outside the box."""
    weight = (1 - box) * valid
    return (F.softplus(logits) * weight).sum(dim=(1, 2)) / weight.sum(dim=(1, 2)).clamp(min=1)


def start_loss(logits: Float[Tensor, "b h w"], cells: Int[Tensor, "b 4"]) -> Float[Tensor, "b"]:
    """Mean cross-entropy with foreground over the cells whose centres lie in an ellipse in the middle of the box, with
    two thirds of its sides.

    The projection loss alone is also content with one row and one column of the box, an easy way out that depends on
    no pixel; who starts from a filled ellipse and lets the colours shape it does not get there. An ellipse as large as
    the box fills more of it than most objects do, and what is once inside seldom leaves.
    """
    corner, far = cells[:, :2, None].float(), cells[:, 2:, None].float()
    along = [torch.arange(side, device=logits.device) + 0.5 for side in (logits.shape[2], logits.shape[1])]
    x, y = (
        (2 * along[axis] - corner[:, axis] - far[:, axis]) / (far[:, axis] - corner[:, axis]).clamp(min=1)
        for axis in (0, 1)
    )
    middle = (x[:, None, :] ** 2 + y[:, :, None] ** 2 <= START_SHARE**2).float()
    return (F.softplus(-logits) * middle).sum(dim=(1, 2)) / middle.sum(dim=(1, 2)).clamp(min=1)


def labelled_loss(
    logits: Float[Tensor, "b h w"],
    masks: Float[Tensor, "b h w"],
    cells: Float[Tensor, "b h w"],
    scores: Float[Tensor, "b"],
) -> Float[Tensor, ""]:
    """Mean over the crops of score x (cross-entropy with the soft mask + dice with it cut at one half) / 2, in the box.

    Args:
        cells: 1 on the box's cells that show the image, 0 elsewhere.
    """
    entropy = F.binary_cross_entropy_with_logits(logits, masks, reduction="none")
    entropy = (entropy * cells).sum(dim=(1, 2)) / cells.sum(dim=(1, 2)).clamp(min=1)
    dice = dice_loss(logits.sigmoid() * cells, (masks > 0.5).float() * cells)
    return (scores * (entropy + dice) / 2).mean()


def mask_quality(probability: Float[Tensor, "b h w"], cells: Int[Tensor, "b 4"]) -> Float[Tensor, "b"]:
    """A mask's own estimate of its quality in [0, 1]: sqrt(mean foreground probability x how tightly it fills the box).

    Tightness is 1 less the mean dice loss of its shadows on the two axes with the box's, 0 without foreground.
    """
    foreground = probability > 0.5
    mean = (probability * foreground).sum(dim=(1, 2)) / foreground.sum(dim=(1, 2)).clamp(min=1)
    tight = 1 - projection_loss(torch.logit(probability, eps=1e-6), cells) / 2
    return (mean * tight.clamp(0, 1)).sqrt()


def _rise(progress: float, start: float, length: float) -> float:
    """0 up to `start`, then linear to 1 over `length`."""
    return min(max((progress - start) / length, 0.0), 1.0) if length > 0 else float(progress >= start)


def _uniform(*shape: int, device: torch.device) -> Tensor:
    """Random numbers between -1 and 1."""
    return 2 * torch.rand(*shape, device=device) - 1


def _jittered(rgb: Float[Tensor, "b 3 h w"], amount: float) -> Float[Tensor, "b 3 h w"]:
    """Brightness, contrast and saturation changed by up to `amount`."""
    gain = 1 + amount * _uniform(3, len(rgb), 1, 1, 1, device=rgb.device)
    bright = rgb * gain[0]
    mean = bright.mean(dim=(1, 2, 3), keepdim=True)
    contrast = (bright - mean) * gain[1] + mean
    gray = contrast.mean(dim=1, keepdim=True)
    return ((contrast - gray) * gain[2] + gray).clamp(0, 255)
