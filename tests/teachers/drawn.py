"""Small drawn images on which the teachers' tests train."""

import torch
from torch import Tensor

from pseudolabel.condinst.batch import Batch, Targets, collate, masks_to_grid

SIDE = 96
COLOURS = ((210.0, 60, 60), (60, 190, 80))


def drawn_batch(images: int = 3, *, classes: int = 2, with_masks: bool = False) -> Batch:
    """Discs and diamonds of one colour each on grey; every object's class is its shape and colour."""
    pictures, targets = [], []
    for index in range(images):
        generator = torch.Generator().manual_seed(index)
        picture = torch.full((3, SIDE, SIDE), 120.0)
        picture += torch.rand(picture.shape, generator=generator) * 3
        masks = [_shape(label % 2, centre, index) for label, centre in enumerate(((28, 30), (66, 64)))]
        for label, mask in enumerate(masks):
            picture[:, mask] = torch.tensor(COLOURS[label % 2], dtype=torch.float32)[:, None]
        pictures.append(picture)
        labels = torch.tensor([0, 1 if classes > 1 else 0])
        boxes = torch.stack([_box(mask) for mask in masks])
        targets.append(Targets(boxes, labels, masks_to_grid(torch.stack(masks)) if with_masks else None))
    return collate(pictures, targets, names=[f"{index}.png" for index in range(images)])


def true_masks(images: int = 3) -> list[Tensor]:
    """(2, h, w) masks of every image on the mask grid."""
    return [target.masks for target in drawn_batch(images, with_masks=True).targets]


def _shape(kind: int, centre: tuple[int, int], index: int) -> Tensor:
    row = torch.arange(SIDE)[:, None] - centre[1] - 3 * index
    column = torch.arange(SIDE)[None] - centre[0] + 2 * index
    radius = 17 + 2 * index
    if kind == 0:
        return row**2 + column**2 <= radius**2
    return row.abs() + column.abs() <= radius


def _box(mask: Tensor) -> Tensor:
    rows, columns = mask.any(dim=1).nonzero()[:, 0], mask.any(dim=0).nonzero()[:, 0]
    return torch.tensor([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]).float()
