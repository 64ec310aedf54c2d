"""Weak and strong views of a batch: flips for both, colours and blur for the student alone."""

from dataclasses import replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torchvision.transforms import v2

from pseudolabel.condinst.batch import Batch, Targets


def flipped(batch: Batch, flip: Bool[Tensor, "b"]) -> Batch:
    """The chosen images mirrored left to right within their own width, with their boxes and masks."""
    images = batch.images.clone()
    targets = list(batch.targets)
    for index in flip.nonzero()[:, 0].tolist():
        width = int(batch.sizes_hw[index, 1])
        images[index, :, :, :width] = batch.images[index, :, :, :width].flip(2)
        if targets:
            targets[index] = _flipped_targets(targets[index], width)
    return replace(batch, images=images, targets=tuple(targets))


def _flipped_targets(targets: Targets, width: int) -> Targets:
    left, top, right, bottom = targets.boxes.unbind(1)
    boxes = torch.stack([width - right, top, width - left, bottom], dim=1)
    if targets.masks is None:
        return replace(targets, boxes=boxes)
    masks, cells = targets.masks.clone(), width // 4
    masks[:, :, :cells] = targets.masks[:, :, :cells].flip(2)
    return replace(targets, boxes=boxes, masks=masks)


def strong_view(images: Float[Tensor, "b 3 H W"], *, blur: bool = False) -> Float[Tensor, "b 3 H W"]:
    """Colour jitter (0.4, 0.4, 0.4, 0.1) with probability 0.8, grey with 0.2, and, if wanted, blur with 0.5.

    Source: BoxTeacher's "strong" and, with blur, "strongv2" augmentation.
    """
    steps: list[v2.Transform] = [v2.RandomApply([v2.ColorJitter(0.4, 0.4, 0.4, 0.1)], p=0.8), v2.RandomGrayscale(0.2)]
    if blur:
        steps.append(v2.RandomApply([v2.GaussianBlur(3)], p=0.5))
    change = v2.Compose(steps)
    return torch.stack([change(image / 255).clamp(0, 1) * 255 for image in images])
