"""What the network is fed: a padded batch of RGB images and, in training, what is known about their objects."""

from dataclasses import dataclass, replace
from typing import Self

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor
from torch.nn import functional as F

from pseudolabel.errors import InputError

SIDE = 32  # sides of a padded batch are multiples of the coarsest encoder stride
STRIDE = 4  # of the mask grid


@dataclass(frozen=True, slots=True)
class Targets:
    """The objects of one image, in pixels of the network's input."""

    boxes: Float[Tensor, "n 4"]
    labels: Int[Tensor, "n"]  # 0-based class indices
    masks: Bool[Tensor, "n h w"] | None = None  # true masks on the mask grid; only for runs with full supervision
    has_mask: Bool[Tensor, "n"] | None = None  # which of them may be used; all where not given

    def to(self, device: torch.device | str) -> "Targets":
        masks = None if self.masks is None else self.masks.to(device)
        has_mask = None if self.has_mask is None else self.has_mask.to(device)
        return Targets(self.boxes.to(device), self.labels.to(device), masks, has_mask)


@dataclass(frozen=True, slots=True)
class Batch:
    """Images of several sizes in one tensor, their content at the top left."""

    images: Float[Tensor, "b 3 H W"]  # RGB, 0 to 255
    sizes_hw: Int[Tensor, "b 2"]  # of each image's content
    original_heights: Int[Tensor, "b"]  # before the loader's resize, for the margin at the bottom
    targets: tuple[Targets, ...] = ()
    names: tuple[str, ...] = ()  # for messages

    @property
    def grid_hw(self) -> tuple[int, int]:
        """Height and width of the mask grid."""
        return self.images.shape[2] // STRIDE, self.images.shape[3] // STRIDE

    def to(self, device: torch.device | str) -> Self:
        return replace(
            self,
            images=self.images.to(device),
            sizes_hw=self.sizes_hw.to(device),
            original_heights=self.original_heights.to(device),
            targets=tuple(targets.to(device) for targets in self.targets),
        )


def collate(
    images: list[Tensor],
    targets: list[Targets] | None = None,
    *,
    original_heights: list[int] | None = None,
    names: list[str] | None = None,
    side_hw: tuple[int, int] | None = None,
) -> Batch:
    """One padded batch.

    Args:
        images: RGB, (3, h, w), 0 to 255, any dtype.
        side_hw: padded size, where it must not depend on the batch; else the smallest that holds all.
    """
    heights, widths = [image.shape[1] for image in images], [image.shape[2] for image in images]
    high, wide = side_hw or (_padded(max(heights)), _padded(max(widths)))
    padded = [F.pad(image.float(), (0, wide - image.shape[2], 0, high - image.shape[1])) for image in images]
    return Batch(
        torch.stack(padded),
        torch.tensor([heights, widths]).T.contiguous(),
        torch.tensor(original_heights or heights),
        tuple(_padded_masks(one, (high // STRIDE, wide // STRIDE)) for one in targets or ()),
        tuple(names or ()),
    )


def _padded(length: int) -> int:
    return -(-length // SIDE) * SIDE


def _padded_masks(targets: Targets, grid_hw: tuple[int, int]) -> Targets:
    if targets.masks is None:
        return targets
    h, w = targets.masks.shape[1:]
    return replace(targets, masks=F.pad(targets.masks, (0, grid_hw[1] - w, 0, grid_hw[0] - h)))


def masks_to_grid(masks: Bool[Tensor, "n H W"]) -> Bool[Tensor, "n h w"]:
    """Full-resolution masks on the mask grid: every fourth pixel from the third on."""
    return masks[:, STRIDE // 2 :: STRIDE, STRIDE // 2 :: STRIDE]


def resized_masks(masks: Bool[Tensor, "n H W"], size_hw: tuple[int, int]) -> Bool[Tensor, "n h w"]:
    """Masks of an image as they are on the grid of the image resized to `size_hw`, whole cells only.

    Bilinear, but only the pixels that the grid reads (`masks_to_grid`) are computed.
    """
    return _grid_lines(_grid_lines(masks, size_hw[0], axis=1), size_hw[1], axis=2) > 0.5


def rescaled_planes(planes: Shaped[Tensor, "n h w"], grid_hw: tuple[int, int]) -> Float[Tensor, "n h2 w2"]:
    """Masks, soft or not, on a batch's grid as they are on that of the batch at another size, of `grid_hw` cells."""
    return _cell_lines(_cell_lines(planes, grid_hw[0], axis=1), grid_hw[1], axis=2)


def _cell_lines(planes: Tensor, count: int, *, axis: int) -> Tensor:
    """Planes on the grid where the `count` cells of another grid of the same picture have their pixels."""
    before = planes.shape[axis]
    pixel = torch.arange(count, device=planes.device) * STRIDE + STRIDE // 2
    place = ((pixel + 0.5) * (before / count) - 0.5 - STRIDE // 2) / STRIDE
    return _lines_at(planes, place, axis=axis)


def _grid_lines(planes: Tensor, length: int, *, axis: int) -> Tensor:
    """Rows or columns that the grid reads of planes that are resized to `length` along that axis."""
    before = planes.shape[axis]
    pixel = torch.arange(length // STRIDE, device=planes.device) * STRIDE + STRIDE // 2
    return _lines_at(planes, (pixel + 0.5) * (before / length) - 0.5, axis=axis)


def _lines_at(planes: Tensor, place: Tensor, *, axis: int) -> Tensor:
    """Rows or columns at these places, between two lines the mean by distance, beyond the last ones these."""
    before = planes.shape[axis]
    place = place.clamp(0, before - 1)
    low = place.long()
    high = (low + 1).clamp(max=before - 1)
    share = (place - low).view(-1, *[1] * (2 - axis))
    return torch.lerp(planes.index_select(axis, low).float(), planes.index_select(axis, high).float(), share)


def check_targets(targets: Targets, size_hw: tuple[int, int], num_classes: int, *, name: str = "") -> None:
    """Refuse what cannot be trained on, before training begins.

    Raises:
        InputError: a box that is not finite, has no area or lies off the image; a label that is no class.
    """
    boxes, labels = targets.boxes, targets.labels
    limits = torch.tensor([size_hw[1], size_hw[0]], device=boxes.device)
    finite = boxes.isfinite().all(dim=1)
    area = (boxes[:, 2:] > boxes[:, :2]).all(dim=1)
    on_image = (boxes[:, 2:] > 0).all(dim=1) & (boxes[:, :2] < limits).all(dim=1)
    for good, what in ((finite, "is not finite"), (area, "has no area"), (on_image, "lies off the image")):
        if not good.all():
            index = int((~good).nonzero()[0])
            raise InputError(f"{name}: box {index} {what}: {boxes[index].tolist()} on an image of {size_hw}")
    if labels.numel() and not 0 <= int(labels.min()) <= int(labels.max()) < num_classes:
        raise InputError(f"{name}: labels {sorted(set(labels.tolist()))} are not all among {num_classes} classes")
