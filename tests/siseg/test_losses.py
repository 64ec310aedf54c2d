"""The three terms against hand-made cases and against the formula written out."""

import math

import pytest
import torch
from torch import Tensor

from pseudolabel.siseg.losses import boundary_loss, displacement_losses, siseg_losses
from pseudolabel.siseg.pairs import pair_offsets, pair_sets, partners, path_cells

SIZE, RADIUS = 28, 10


def grid_of_cells() -> Tensor:
    return torch.stack(torch.meshgrid(torch.arange(SIZE), torch.arange(SIZE), indexing="ij")).float()


def disc(row: float, column: float, radius: float) -> Tensor:
    return (grid_of_cells() - torch.tensor([row, column]).view(2, 1, 1)).norm(dim=0) < radius


def test_field_that_points_at_the_centre_of_a_disc_has_no_object_error() -> None:
    labels = disc(13, 14, 8).long()
    field = (torch.tensor([13.0, 14.0]).view(2, 1, 1) - grid_of_cells()) * labels
    inside, outside = displacement_losses(field[None], pair_sets(labels[None], RADIUS), RADIUS)
    assert inside.item() == 0
    assert outside.item() == 0


def test_zero_field_costs_the_mean_offset_of_the_pairs() -> None:
    labels = torch.ones((1, SIZE, SIZE), dtype=torch.long)
    inside, _ = displacement_losses(torch.zeros((1, 2, SIZE, SIZE)), pair_sets(labels, RADIUS), RADIUS)
    offsets = pair_offsets(RADIUS)
    assert inside.item() == pytest.approx(sum(abs(y) + abs(x) for y, x in offsets) / (2 * len(offsets)), rel=1e-5)


def test_even_boundary_of_one_half_costs_log_two_per_balanced_class() -> None:
    labels = disc(13, 14, 7).long()[None]
    loss = boundary_loss(torch.full((1, SIZE, SIZE), 0.5), pair_sets(labels, RADIUS), RADIUS)
    assert loss.item() == pytest.approx(2 * math.log(2), abs=1e-3)


def plain_loss(field: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
    """Section 1.4 of the method, pair by pair and with a tape over everything."""
    sets, boundary = pair_sets(labels, RADIUS), logits.sigmoid()
    errors, shifts, affinity = [], [], []
    for offset in pair_offsets(RADIUS):
        difference = partners(field, (0, 0), RADIUS) - partners(field, offset, RADIUS)
        shifts.append(difference.abs().sum(1))
        errors.append((difference - torch.tensor(offset).view(1, 2, 1, 1)).abs().sum(1))
        affinity.append(1 - torch.stack([partners(boundary, c, RADIUS) for c in path_cells(offset)]).amax(0))
    r = torch.stack(affinity, 1)
    mean = lambda values, mask: (values * mask).sum() / (mask.sum() + 1e-5)  # noqa: E731
    displaced = (
        mean(torch.stack(errors, 1), sets.object_same) / 2 + mean(torch.stack(shifts, 1), sets.background_same) / 2
    )
    same = mean(torch.log(r + 1e-5), sets.object_same) + mean(torch.log(r + 1e-5), sets.background_same)
    return displaced - same / 2 - mean(torch.log(1 + 1e-5 - r), sets.different)


def test_losses_and_gradients_equal_the_formula_written_out() -> None:
    generator = torch.Generator().manual_seed(3)
    labels = torch.randint(0, 3, (2, 7, 7), generator=generator).repeat_interleave(4, 1).repeat_interleave(4, 2)
    labels[0, :5] = 255
    field = torch.randn((2, 2, SIZE, SIZE), generator=generator).mul_(3).requires_grad_()
    logits = torch.randn((2, SIZE, SIZE), generator=generator).requires_grad_()
    ours = torch.stack(siseg_losses(field, logits, labels)).sum()
    plain = plain_loss(field, logits, labels)
    assert ours.item() == pytest.approx(plain.item(), rel=1e-5)
    for mine, theirs in zip(
        torch.autograd.grad(ours, (field, logits)), torch.autograd.grad(plain, (field, logits)), strict=True
    ):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-7)


def test_batch_of_ignored_labels_costs_nothing() -> None:
    labels = torch.full((1, SIZE, SIZE), 255)
    losses = siseg_losses(torch.randn((1, 2, SIZE, SIZE)), torch.randn((1, SIZE, SIZE)), labels)
    assert torch.stack(losses).sum().item() == 0
