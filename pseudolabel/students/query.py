"""A student of queries: a MaskFormer-style decoder with masked attention, matched to the objects one to one.

It needs neither anchors nor suppression, so that its whole way from image to masks is one graph of fixed shape.
Source: Mask2Former (arXiv 2112.01527) for masked attention, deep supervision and the costs; BoxSeg-T puts pseudo masks
into such a decoder; for objects with a box alone, BoxInst's projection loss stands in for the mask's, as in Box2Mask-T.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import gcd

import torch
from jaxtyping import Bool, Float, Int
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import FeaturePyramidNetwork, masks_to_boxes

from pseudolabel.condinst.batch import STRIDE, masks_to_grid
from pseudolabel.encoders.build import build_encoder
from pseudolabel.errors import ConfigError
from pseudolabel.losses.boxes import box_cells, dice_loss, projection_loss
from pseudolabel.students.base import Instances, Student, StudentConfig, mean_entropy, sure_share
from pseudolabel.students.data import Sample, StudentBatch
from pseudolabel.training.processes import normaliser

HEADS = 8
NO_OBJECT_WEIGHT = 0.1
CLASS_COST, ENTROPY_COST, DICE_COST = 2.0, 5.0, 5.0
MOSTLY = 0.5  # a mask of which this share is ignored says nothing about background


@dataclass(frozen=True, slots=True)
class Said:
    """What all queries of a batch say after one layer."""

    classes: Float[Tensor, "b q c1"]  # logits, the last one for "no object"
    masks: Float[Tensor, "b q h w"]  # logits on the stride-4 grid


class QueryStudent(Student):
    """As many queries as there are `detections`, refined by masked attention over strides 32, 16, 8 in turns."""

    def __init__(self, config: StudentConfig, num_classes: int, backbone_weights: str = "none") -> None:
        super().__init__()
        self.config, self.num_classes = config, num_classes
        width = config.width
        self.body = build_encoder(config.backbone, backbone_weights)
        self.fpn = FeaturePyramidNetwork(list(self.body.channels), width)
        self.mask_features = nn.Sequential(
            _smoothed(width), nn.Upsample(scale_factor=2, mode="bilinear"), _smoothed(width), nn.Conv2d(width, width, 1)
        )
        self.queries = nn.Embedding(config.detections, width)
        self.places = nn.Embedding(config.detections, width)
        self.levels = nn.Embedding(3, width)
        self.layers = nn.ModuleList(_Layer(width) for _ in range(3 * max(config.convs // 2, 1)))
        self.norm = nn.LayerNorm(width)
        self.classes = nn.Linear(width, num_classes + 1)
        self.mask_embedding = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width))

    def find_at_most(self, detections: int) -> None:
        if detections > len(self.queries.weight):
            raise ConfigError(
                f"this student has {len(self.queries.weight)} queries and cannot find {detections} objects; "
                f"train it with --detections {detections}"
            )
        super().find_at_most(detections)

    def encoder(self) -> nn.Module:
        return self.body

    def fixed_parts(self) -> list[nn.Module]:
        return [self.body, self.mask_features]

    def forward(self, images: Float[Tensor, "b 3 H W"]) -> list[Said]:
        """What the queries say before the first layer and after each."""
        named = {f"c{level}": feature for level, feature in enumerate(self.body(images), 3)}
        pyramid = list(self.fpn(named).values())
        features = self.mask_features(pyramid[0])
        state = self.queries.weight.expand(len(images), -1, -1)
        said = [self._say(state, features)]
        for number, layer in enumerate(self.layers):
            level = 2 - number % 3
            blocked = _blocked(said[-1].masks, pyramid[level].shape[2:])
            state = layer(state, self.places.weight, _memory(pyramid[level], self.levels.weight[level]), blocked)
            said.append(self._say(state, features))
        return said

    def _say(self, state: Float[Tensor, "b q d"], features: Float[Tensor, "b d h w"]) -> Said:
        state = self.norm(state)
        masks = torch.einsum("bqd,bdhw->bqhw", self.mask_embedding(state), features)
        return Said(self.classes(state).float(), masks.float())

    def losses(self, batch: StudentBatch) -> dict[str, Float[Tensor, ""]]:
        truths = [_truth(sample) for sample in batch.samples]
        layers = [_layer_losses(said, truths) for said in self(batch.images)]
        return {name: torch.stack([one[name] for one in layers]).mean() for name in layers[0]}

    @torch.no_grad()
    def detect(self, images: Float[Tensor, "b 3 H W"], sizes_hw: Sequence[tuple[int, int]]) -> list[Instances]:
        said: Said = self(images)[-1]
        both = zip(said.classes, said.masks, sizes_hw, strict=True)
        return [_instances(classes, masks, size_hw, self.config) for classes, masks, size_hw in both]


class _Layer(nn.Module):
    """Masked attention to the image, attention among queries, two linear layers; each added and normalised."""

    def __init__(self, width: int) -> None:
        super().__init__()
        heads = gcd(HEADS, width)
        self.look = nn.MultiheadAttention(width, heads, batch_first=True)
        self.talk = nn.MultiheadAttention(width, heads, batch_first=True)
        self.think = nn.Sequential(nn.Linear(width, 4 * width), nn.ReLU(), nn.Linear(4 * width, width))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))

    def forward(
        self, state: Tensor, places: Tensor, memory: tuple[Tensor, Tensor], blocked: Bool[Tensor, "b q k"]
    ) -> Float[Tensor, "b q d"]:
        keys, values = memory
        mask = blocked.repeat_interleave(self.look.num_heads, dim=0)
        seen = self.look(state + places, keys, values, attn_mask=mask, need_weights=False)[0]
        state = self.norms[0](state + seen)
        place = state + places
        state = self.norms[1](state + self.talk(place, place, state, need_weights=False)[0])
        result: Tensor = self.norms[2](state + self.think(state))
        return result


def _smoothed(width: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.GroupNorm(gcd(8, width), width), nn.ReLU())


def _memory(feature: Float[Tensor, "b d h w"], level: Float[Tensor, "d"]) -> tuple[Tensor, Tensor]:
    """Keys, which carry their place, and values, which do not; (b, h w, d)."""
    values = (feature + level[:, None, None]).flatten(2).transpose(1, 2)
    return values + sine_places(feature.shape[2], feature.shape[3], feature.shape[1]).to(values), values


def sine_places(height: int, width: int, channels: int) -> Float[Tensor, "hw d"]:
    """Sines and cosines of row and column, a quarter of the channels each; periods from 2 pi to 10000 times that.

    Places are fractions of the picture times 2 pi. Source: DETR (arXiv 2005.12872).
    """
    count = channels // 4
    period = 10000 ** (torch.arange(count) / count)
    row = (torch.arange(height) + 0.5)[:, None] / height * 2 * torch.pi / period
    column = (torch.arange(width) + 0.5)[:, None] / width * 2 * torch.pi / period
    rows = torch.cat([row.sin(), row.cos()], dim=1)[:, None].expand(-1, width, -1)
    columns = torch.cat([column.sin(), column.cos()], dim=1)[None].expand(height, -1, -1)
    places = torch.cat([rows, columns], dim=2).flatten(0, 1)
    return F.pad(places, (0, channels - places.shape[1]))


def _blocked(masks: Float[Tensor, "b q h w"], size_hw: Sequence[int]) -> Bool[Tensor, "b q k"]:
    """Cells outside a query's own mask, which it does not look at; a query with an empty mask looks everywhere."""
    small = F.interpolate(masks.detach(), size=tuple(size_hw), mode="bilinear", antialias=False)
    outside = (small < 0).flatten(2)
    return outside & ~outside.all(dim=2, keepdim=True)


# --- matching and losses ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Truth:
    """The objects of one image on the stride-4 grid; a mask's cell says how much of it is covered."""

    labels: Int[Tensor, "n"]
    masks: Float[Tensor, "n h w"]
    cells: Int[Tensor, "n 4"]
    has_mask: Bool[Tensor, "n"]
    weights: Float[Tensor, "n"]
    sure: Float[Tensor, "n h w"]  # how much of a cell is not left out
    ignored: Bool[Tensor, "h w"]


def _truth(sample: Sample) -> _Truth:
    masks, sure = sure_share(sample.masks, sample.unsure, lambda planes: F.avg_pool2d(planes[:, None], STRIDE)[:, 0])
    ignored = masks_to_grid(sample.ignored[None])[0]
    cells = box_cells(sample.boxes, (ignored.shape[0], ignored.shape[1]), stride=STRIDE)
    return _Truth(sample.labels, masks, cells, sample.has_mask, sample.weights, sure, ignored)


def _layer_losses(said: Said, truths: list[_Truth]) -> dict[str, Tensor]:
    """Losses of one layer: class over all queries, mask or projection over the matched ones."""
    classes, masks, dices, projections = [], [], [], []
    for logits, planes, truth in zip(said.classes, said.masks, truths, strict=True):
        query, owner = match(logits.detach(), planes.detach(), truth)
        classes.append(_class_terms(logits, planes.detach(), query, truth.labels[owner], truth.ignored))
        use, weight = truth.has_mask[owner], truth.weights[owner]
        mask, sure = truth.masks[owner], truth.sure[owner]
        masks.append((weight * use * mean_entropy(planes[query], mask, sure)).sum())
        dices.append((weight * use * dice_loss(planes[query].sigmoid(), mask, sure)).sum())
        projections.append((~use * projection_loss(planes[query], truth.cells[owner])).sum())
    terms, weights = (torch.cat(parts) for parts in zip(*classes, strict=True))
    count = normaliser(torch.tensor(sum(len(truth.labels) for truth in truths), device=terms.device))
    return {
        "class": CLASS_COST * terms.sum() / normaliser(weights.sum(), least=1e-6),
        "mask": ENTROPY_COST * torch.stack(masks).sum() / count,
        "dice": DICE_COST * torch.stack(dices).sum() / count,
        "projection": DICE_COST * torch.stack(projections).sum() / count,
    }


def _class_terms(
    logits: Float[Tensor, "q c1"],
    masks: Float[Tensor, "q h w"],
    query: Int[Tensor, "n"],
    labels: Int[Tensor, "n"],
    ignored: Bool[Tensor, "h w"],
) -> tuple[Float[Tensor, "q"], Float[Tensor, "q"]]:
    """Weighted cross-entropy of every query, and the weights: 0 for an unmatched one that lies on ignored pixels."""
    none = logits.shape[1] - 1
    target = torch.full((len(logits),), none, device=logits.device)
    target[query] = labels
    weight = torch.where(target == none, NO_OBJECT_WEIGHT, 1.0)
    on = masks > 0
    share = (on & ignored).sum(dim=(1, 2)) / on.sum(dim=(1, 2)).clamp(min=1)
    weight = weight * ~((share > MOSTLY) & (target == none))
    return weight * F.cross_entropy(logits, target, reduction="none"), weight


def match(
    logits: Float[Tensor, "q c1"], masks: Float[Tensor, "q h w"], truth: _Truth
) -> tuple[Int[Tensor, "n"], Int[Tensor, "n"]]:
    """The queries, and the objects that they stand for, of least total cost."""
    if not len(truth.labels):
        nothing = torch.zeros(0, dtype=torch.int64, device=logits.device)
        return nothing, nothing
    cost = -CLASS_COST * logits.softmax(dim=1)[:, truth.labels]
    by_mask = ENTROPY_COST * _pair_entropy(masks, truth.masks) + DICE_COST * _pair_dice(masks.sigmoid(), truth.masks)
    cost = cost + torch.where(truth.has_mask, by_mask, DICE_COST * _pair_projection(masks, truth.cells))
    query, owner = linear_sum_assignment(cost.cpu().numpy())
    return torch.as_tensor(query, device=logits.device), torch.as_tensor(owner, device=logits.device)


def _pair_entropy(logits: Float[Tensor, "q h w"], masks: Float[Tensor, "n h w"]) -> Float[Tensor, "q n"]:
    """Mean cross-entropy of every pair: softplus(x) - x y, averaged over the cells."""
    x, y = logits.flatten(1), masks.flatten(1)
    return (F.softplus(x).sum(dim=1)[:, None] - x @ y.T) / x.shape[1]


def _pair_dice(probability: Float[Tensor, "q h w"], masks: Float[Tensor, "n h w"]) -> Float[Tensor, "q n"]:
    x, y = probability.flatten(1), masks.flatten(1)
    return 1 - 2 * (x @ y.T) / (x.square().sum(dim=1)[:, None] + y.square().sum(dim=1)[None] + 1e-5)


def _pair_projection(logits: Float[Tensor, "q h w"], cells: Int[Tensor, "n 4"]) -> Float[Tensor, "q n"]:
    queries, objects = len(logits), len(cells)
    every = logits.repeat_interleave(objects, dim=0)
    return projection_loss(every, cells.repeat(queries, 1)).view(queries, objects)


# --- read-out --------------------------------------------------------------------------------------------------------


def _instances(
    logits: Float[Tensor, "q c1"], planes: Float[Tensor, "q h w"], size_hw: tuple[int, int], config: StudentConfig
) -> Instances:
    """The best class of each query; the score is its probability times the mean probability within the mask."""
    score, label = logits.softmax(dim=1)[:, :-1].max(dim=1)
    large = F.interpolate(planes[None], scale_factor=STRIDE, mode="bilinear")[0, :, : size_hw[0], : size_hw[1]]
    masks = large > 0
    area = masks.flatten(1).sum(dim=1)
    sure = (large.sigmoid() * masks).flatten(1).sum(dim=1) / area.clamp(min=1)
    score = score * sure
    order = score.argsort(descending=True, stable=True)
    order = order[(score[order] > config.least_score) & (area[order] > 0)][: config.detections]
    extent = masks_to_boxes(masks[order]) + torch.tensor([0, 0, 1, 1], device=masks.device)
    return Instances(extent, label[order], score[order], masks[order])
