"""The detector without anchors: towers over the pyramid, and the controller that reads the box tower.

Source: FCOS (arXiv 1904.01355) with CondInst's controller (arXiv 2003.05664).
"""

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from pseudolabel.condinst.pyramid import STRIDES

SIZES_OF_INTEREST = (64.0, 128.0, 256.0, 512.0, 1024.0)
PRIOR = 0.01  # of a location to hold an object, before training
FIRST_DISTANCE = 2.0  # of every side, in strides, before training: the ReLU that follows is dead below 0


@dataclass(frozen=True)
class Locations:
    """Every place that may speak for an object, all levels one after the other, rows of a level one after the other."""

    sizes_hw: tuple[tuple[int, int], ...]
    xy: Float[Tensor, "l 2"]  # pixels
    stride: Float[Tensor, "l"]
    level: Int[Tensor, "l"]

    @classmethod
    def of(cls, sizes_hw: tuple[tuple[int, int], ...], device: torch.device) -> "Locations":
        """Locations of pyramid levels of these sizes: (column * s + s // 2, row * s + s // 2) on stride s."""
        parts = []
        for (h, w), stride in zip(sizes_hw, STRIDES, strict=True):
            y = torch.arange(h, device=device, dtype=torch.float32) * stride + stride // 2
            x = torch.arange(w, device=device, dtype=torch.float32) * stride + stride // 2
            parts.append(torch.stack([x.repeat(h), y.repeat_interleave(w)], dim=1))
        counts = torch.tensor([len(part) for part in parts], device=device)
        level = torch.repeat_interleave(torch.arange(len(parts), device=device), counts)
        return cls(sizes_hw, torch.cat(parts), torch.tensor(STRIDES, device=device).float()[level], level)

    @cached_property
    def size_of_interest(self) -> Float[Tensor, "l"]:
        """What the mask head's coordinates are divided by."""
        return torch.tensor(SIZES_OF_INTEREST, device=self.xy.device)[self.level]

    @cached_property
    def first(self) -> tuple[int, ...]:
        """Index of each level's first location."""
        starts = [0]
        for h, w in self.sizes_hw[:-1]:
            starts.append(starts[-1] + h * w)
        return tuple(starts)


@dataclass(frozen=True, slots=True)
class Dense:
    """What the towers say at every location."""

    logits: Float[Tensor, "b l c"]
    ltrb: Float[Tensor, "b l 4"]  # distances to the four sides, in strides
    centerness: Float[Tensor, "b l"]  # logits
    towers: tuple[Float[Tensor, "b c h w"], ...]  # of the boxes, for the controller
    locations: Locations

    def boxes_xyxy(self) -> Float[Tensor, "b l 4"]:
        """Predicted boxes in pixels."""
        return decode(self.ltrb, self.locations)


def decode(ltrb: Float[Tensor, "*b l 4"], locations: Locations) -> Float[Tensor, "*b l 4"]:
    """Corner coordinates in pixels of boxes given by distances in strides."""
    distance = ltrb * locations.stride[:, None]
    return torch.cat([locations.xy - distance[..., :2], locations.xy + distance[..., 2:]], dim=-1)


class FcosHead(nn.Module):
    """Classification, boxes, centerness, and the controller; the towers are shared by all levels."""

    def __init__(self, channels: int, num_classes: int, num_parameters: int, *, convs: int = 4) -> None:
        super().__init__()
        self.class_tower = _tower(channels, convs)
        self.box_tower = _tower(channels, convs)
        self.classes = nn.Conv2d(channels, num_classes, 3, padding=1)
        self.box = nn.Conv2d(channels, 4, 3, padding=1)
        self.centerness = nn.Conv2d(channels, 1, 3, padding=1)
        self.controller = nn.Conv2d(channels, num_parameters, 3, padding=1)
        self.scales = nn.Parameter(torch.ones(len(STRIDES)))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.01)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        nn.init.constant_(_bias(self.classes), -math.log((1 - PRIOR) / PRIOR))
        nn.init.constant_(_bias(self.box), FIRST_DISTANCE)

    def forward(self, pyramid: list[Float[Tensor, "b c h w"]]) -> Dense:
        towers = tuple(self.box_tower(level) for level in pyramid)
        logits = [self.classes(self.class_tower(level)) for level in pyramid]
        ltrb = [torch.relu(scale * self.box(tower)) for scale, tower in zip(self.scales, towers, strict=True)]
        centerness = [self.centerness(tower) for tower in towers]
        sizes = tuple((level.shape[2], level.shape[3]) for level in pyramid)
        locations = Locations.of(sizes, pyramid[0].device)
        return Dense(_rows(logits).float(), _rows(ltrb).float(), _rows(centerness)[..., 0].float(), towers, locations)

    def parameters_at(
        self, dense: Dense, image_index: Int[Tensor, "n"], location_index: Int[Tensor, "n"]
    ) -> Float[Tensor, "n p"]:
        """The controller's convolution, computed only at these locations.

        Raises:
            ValueError: a location is not on the pyramid.
        """
        channels = self.controller.in_channels
        patches = dense.towers[0].new_zeros(len(location_index), 9, channels)
        level = dense.locations.level[location_index]
        for index, (tower, first) in enumerate(zip(dense.towers, dense.locations.first, strict=True)):
            chosen = (level == index).nonzero()[:, 0]
            patches[chosen] = _patches(tower, image_index[chosen], location_index[chosen] - first)
        kernel = self.controller.weight.permute(2, 3, 1, 0).reshape(9 * channels, -1)
        result: Tensor = patches.flatten(1) @ kernel.to(patches.dtype) + _bias(self.controller)
        return result.float()


def _patches(
    tower: Float[Tensor, "b c h w"], image: Int[Tensor, "k"], cell: Int[Tensor, "k"]
) -> Float[Tensor, "k 9 c"]:
    """The 3x3 neighbourhood of cells of a map, zero beyond its border."""
    padded = nn.functional.pad(tower, (1, 1, 1, 1))
    step = torch.arange(3, device=tower.device)
    row = torch.div(cell, tower.shape[3], rounding_mode="floor")[:, None] + step.repeat_interleave(3)
    column = (cell % tower.shape[3])[:, None] + step.repeat(3)
    return padded.permute(0, 2, 3, 1)[image[:, None], row, column]


def group_norm(channels: int) -> nn.GroupNorm:
    """Groups of eight channels, which for the published 256 channels are the published 32 groups.

    Where eight does not divide the width, of four or two, else one group of all: never of a single channel, which on
    a level of one cell would have nothing to normalise over.
    """
    per_group = next((size for size in (8, 4, 2) if channels % size == 0), channels)
    return nn.GroupNorm(channels // per_group, channels)


def _tower(channels: int, convs: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for _ in range(convs):
        layers += [nn.Conv2d(channels, channels, 3, padding=1), group_norm(channels), nn.ReLU()]
    return nn.Sequential(*layers)


def _rows(maps: list[Tensor]) -> Tensor:
    """Maps of all levels as (b, locations, channels)."""
    return torch.cat([one.flatten(2) for one in maps], dim=2).transpose(1, 2)


def _bias(conv: nn.Conv2d) -> Tensor:
    if conv.bias is None:
        raise ValueError("the convolution has no bias")
    return conv.bias
