"""Weak and strong views of a batch: windows and flips for both, colours and blur for the student alone."""

from dataclasses import replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from pseudolabel.condinst.batch import SIDE, STRIDE, Batch, Targets, rescaled_planes
from pseudolabel.training.views import boxes_in_window, mirrored_boxes, strong_colours

_NO_MARGIN = 2**30  # an image so high before its resize that no row of it is distrusted


def random_windows(batch: Batch, side_px: int) -> Batch:
    """A random part of at most `side_px` by `side_px` of every image, its corner on the mask grid.

    A box is cut by the window; an object of which nothing is left is gone. The rows at an image's bottom that are not
    trusted (`bottom_margin`) stay so where the window reaches them.

    Raises:
        ValueError: `side_px` is no multiple of 32.
    """
    if side_px % SIDE:
        raise ValueError(f"expected a multiple of {SIDE}, got {side_px}")
    parts = [_window(batch, index, side_px) for index in range(len(batch.images))]
    images, sizes, heights, targets = zip(*parts, strict=True)
    return Batch(torch.stack(images), torch.stack(sizes), torch.stack(heights), targets, batch.names)


def _window(batch: Batch, index: int, side_px: int) -> tuple[Tensor, Tensor, Tensor, Targets]:
    image, size_hw = batch.images[index], batch.sizes_hw[index]
    top, left = (_corner(int(length), side_px) for length in size_hw)
    pixels = image[:, top : top + side_px, left : left + side_px]
    pixels = F.pad(pixels, (0, side_px - pixels.shape[2], 0, side_px - pixels.shape[1]))
    inner_hw = (size_hw - size_hw.new_tensor([top, left])).clamp(max=side_px)
    ends = top + int(inner_hw[0]) == int(size_hw[0])
    height = batch.original_heights[index]
    height = height * inner_hw[0] // size_hw[0] if ends else torch.full_like(height, _NO_MARGIN)
    return pixels, inner_hw, height, _in_window(batch.targets[index], (top, left), inner_hw, side_px)


def _corner(length: int, side_px: int) -> int:
    """A random start, a multiple of the mask grid's stride; the last one leaves no whole cell out."""
    steps = -(-max(length - side_px, 0) // STRIDE)
    return STRIDE * int(torch.randint(steps + 1, ()))


def _in_window(targets: Targets, corner: tuple[int, int], inner_hw: Tensor, side_px: int) -> Targets:
    top, left = corner
    height, width = inner_hw.tolist()
    boxes, keep = boxes_in_window(targets.boxes, top=top, left=left, height=height, width=width)
    masks = targets.masks
    if masks is not None:
        cells, row, column = side_px // STRIDE, top // STRIDE, left // STRIDE
        masks = masks[keep, row : row + cells, column : column + cells]
        masks = F.pad(masks, (0, cells - masks.shape[2], 0, cells - masks.shape[1]))
    has_mask = None if targets.has_mask is None else targets.has_mask[keep]
    return Targets(boxes[keep], targets.labels[keep], masks, has_mask)


def scaled(batch: Batch, factor: float) -> Batch:
    """The batch at another size, both sides multiplied by about `factor` and made multiples of 32 again."""
    sides = batch.images.shape[2:]
    high, wide = (max(round(side * factor / SIDE), 1) * SIDE for side in sides)
    if (high, wide) == tuple(sides):
        return batch
    images = F.interpolate(batch.images, (high, wide), mode="bilinear", antialias=True, align_corners=False)
    by_xy = images.new_tensor([wide / sides[1], high / sides[0]])
    sizes_hw = (batch.sizes_hw * by_xy.flip(0)).round().long().clamp(min=1)
    targets = tuple(_scaled_targets(one, by_xy, (high // STRIDE, wide // STRIDE)) for one in batch.targets)
    return replace(batch, images=images.clamp(0, 255), sizes_hw=sizes_hw, targets=targets)


def _scaled_targets(targets: Targets, by_xy: Tensor, grid_hw: tuple[int, int]) -> Targets:
    masks = None if targets.masks is None else rescaled_planes(targets.masks, grid_hw) > 0.5
    return replace(targets, boxes=targets.boxes * by_xy.repeat(2), masks=masks)


def flipped(batch: Batch, flip: Bool[Tensor, "b"]) -> Batch:
    """The chosen images mirrored left to right within their own width, with their boxes and masks.

    Masks are known at the pixels of the grid alone, and a mirrored picture would be asked for others: where there are
    masks it is moved right by up to three pixels, so that the grid's pixels fall on each other.
    """
    images = batch.images.clone()
    targets = list(batch.targets)
    for index in flip.nonzero()[:, 0].tolist():
        width = int(batch.sizes_hw[index, 1])
        shift = (1 - width) % STRIDE if targets and targets[index].masks is not None else 0
        content = F.pad(batch.images[index, :, :, :width], (0, shift), mode="replicate")
        images[index, :, :, :width] = content.flip(2)[:, :, :width]
        if targets:
            targets[index] = _flipped_targets(targets[index], width, shift)
    return replace(batch, images=images, targets=tuple(targets))


def _flipped_targets(targets: Targets, width: int, shift: int) -> Targets:
    boxes = mirrored_boxes(targets.boxes, width + shift)
    boxes[:, 0::2] = boxes[:, 0::2].clamp(max=width)
    if targets.masks is None:
        return replace(targets, boxes=boxes)
    cells = (width + shift - 1) // STRIDE
    masks = targets.masks.clone()
    masks[:, :, :cells] = targets.masks[:, :, :cells].flip(2)
    keep = boxes[:, 2] > boxes[:, 0]  # what lay in the columns that were moved out is gone
    has_mask = None if targets.has_mask is None else targets.has_mask[keep]
    return Targets(boxes[keep], targets.labels[keep], masks[keep], has_mask)


def strong_view(images: Float[Tensor, "b 3 H W"], *, blur: bool = False) -> Float[Tensor, "b 3 H W"]:
    """Every image in colours of its own; see `training.views.strong_colours`."""
    change = strong_colours(blur=blur)
    return torch.stack([change(image / 255).clamp(0, 1) * 255 for image in images])
