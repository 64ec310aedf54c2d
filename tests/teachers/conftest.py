"""Small drawn images, and what trains a teacher on them and measures its masks, as fixtures of the teachers' tests."""

import math

import pytest
import torch
from torch import Tensor

from pseudolabel.condinst.batch import Batch, Targets, collate, masks_to_grid
from pseudolabel.condinst.inference import candidates_for_boxes
from pseudolabel.condinst.network import CondInst
from pseudolabel.teachers.condinst.boxinst import BoxInst
from pseudolabel.training.denormals import without_denormals

SIDE = 96
COLOURS = ((210.0, 60, 60), (60, 190, 80))


def draw(images: int = 3, *, classes: int = 2, with_masks: bool = False) -> Batch:
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
    return [target.masks for target in draw(images, with_masks=True).targets]


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


TINY = {
    "backbone": "tiny",
    "backbone_weights": "none",
    "image_px": SIDE,
    "channels": 32,
    "convs": 1,
    "mask_branch_channels": 32,
    "learning_rate": 2e-3,
    "encoder_learning_rate": 2e-3,
    "bottom_px": 0,
    "flip": False,
}


def train(method: BoxInst, batch: Batch, steps: int) -> None:
    """AdamW with a short rise and half a cosine, random numbers by the step."""
    optimizer = torch.optim.AdamW(method.parameter_groups(), weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1, (step + 1) / 10) * 0.5 * (1 + math.cos(math.pi * step / steps))
    )
    method.train()
    for step in range(steps):
        torch.manual_seed(step)
        total = torch.stack(list(method.losses(batch, progress=step / steps).values())).sum()
        optimizer.zero_grad()
        total.backward()
        torch.nn.utils.clip_grad_norm_(method.parameters(), 5.0)
        optimizer.step()
        schedule.step()
        method.after_step(step)


@torch.no_grad()
def mask_ious(network: CondInst, batch: Batch) -> Tensor:
    """IoU on the mask grid of every object's best-fitting candidate."""
    network.eval()
    features = network(batch.images)
    ious = []
    for index, (target, truth) in enumerate(zip(batch.targets, true_masks(len(batch.images)), strict=True)):
        found = candidates_for_boxes(features.dense, index, target.boxes, (SIDE, SIDE), k=1, min_iou=0.0)
        location = found.location[:, 0]
        mask = network.mask_logits(features, torch.full_like(location, index), location) > 0
        ious.append((mask & truth).sum((1, 2)) / (mask | truth).sum((1, 2)).clamp(min=1))
    return torch.cat(ious)


def overfit(method_class, config, *, steps: int, with_masks: bool = False, seed: int = 0) -> tuple[BoxInst, Tensor]:
    """The trained method and its masks' IoUs."""
    torch.manual_seed(seed)
    method = method_class(CondInst(config, 2), config)
    with without_denormals():
        train(method, draw(with_masks=with_masks), steps)
    return method, mask_ious(method.trained_network(), draw())


@pytest.fixture
def drawn():
    """A function that draws a batch."""
    return draw


@pytest.fixture
def tiny():
    """Options of a network that trains in seconds."""
    return dict(TINY)


@pytest.fixture
def overfitted():
    """A function that trains a method: (class, config, steps=, with_masks=, seed=) -> method, IoUs of its masks."""
    return overfit


@pytest.fixture(params=[0, pytest.param(1, marks=pytest.mark.slow), pytest.param(2, marks=pytest.mark.slow)])
def seed(request):
    """Seeds of the weights; a recipe that hangs on its seed is none. One is for the quick suite."""
    return request.param
