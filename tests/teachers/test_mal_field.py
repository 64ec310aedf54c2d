"""The mean field: what it must not touch, and what it must join."""

import pytest
import torch

from pseudolabel.teachers.mal.field import mean_field, shifted


def _plane(values: list[list[float]]) -> torch.Tensor:
    return torch.tensor([values])


def test_a_shifted_plane_shows_the_neighbour_and_zero_beyond_the_edge() -> None:
    plane = _plane([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    assert shifted(plane, (0, 1)).tolist() == [[[2.0, 3.0, 0.0], [5.0, 6.0, 0.0]]]
    assert shifted(plane, (-1, 0)).tolist() == [[[0.0, 0.0, 0.0], [1.0, 2.0, 3.0]]]


def test_without_weight_no_cell_changes_its_side() -> None:
    probability = torch.rand(2, 8, 8, generator=torch.Generator().manual_seed(0))
    lab, valid = torch.rand(2, 3, 8, 8), torch.ones(2, 8, 8, dtype=torch.bool)
    refined = mean_field(probability, lab, valid, torch.ones(2, 8, 8), weight=0)
    assert torch.equal(refined > 0.5, probability > 0.5)


def test_one_cell_by_hand() -> None:
    """Two cells of one colour, p = 0.8 and 0.5: each has the other as its only neighbour.

    The first pass gives the second cell sigmoid(0 + 1 * (2 * 0.8 - 1)) = sigmoid(0.6) and the first one
    sigmoid(logit(0.8) / 2 + 0) = 2 / 3; four more passes follow the same two lines.
    """
    first, second = 0.8, 0.5
    start = torch.tensor([first, second])
    unary = torch.logit(start) / 2
    expected = start
    for _ in range(5):
        expected = torch.sigmoid(unary + (2 * expected.flip(0) - 1))
    refined = mean_field(
        start.view(1, 1, 2),
        torch.zeros(1, 3, 1, 2),
        torch.ones(1, 1, 2, dtype=torch.bool),
        torch.ones(1, 1, 2),
        weight=1,
    )
    torch.testing.assert_close(refined.flatten(), expected)


def test_cells_of_one_colour_join_and_another_colour_stays_out() -> None:
    """A doubtful cell on the left half's colour is drawn to the left's side, whichever that is."""
    lab = torch.zeros(1, 3, 8, 8)
    lab[:, 0, :, 4:] = 60
    probability = torch.full((1, 8, 8), 0.9)
    probability[:, :, 4:] = 0.1
    probability[:, 3, 2], probability[:, 3, 5] = 0.45, 0.55
    refined = mean_field(probability, lab, torch.ones(1, 8, 8, dtype=torch.bool), torch.ones(1, 8, 8), weight=2)
    assert torch.equal(refined[0] > 0.5, lab[0, 0] == 0)


def test_outside_the_box_and_beside_the_image_nothing_speaks() -> None:
    probability = torch.full((1, 4, 4), 0.9)
    box, valid = torch.ones(1, 4, 4), torch.ones(1, 4, 4, dtype=torch.bool)
    box[:, :, 3], valid[:, :, 0] = 0, False
    refined = mean_field(probability * box, torch.zeros(1, 3, 4, 4), valid, box, weight=1)
    assert refined[:, :, 3].abs().max() == 0
    alone = mean_field(probability, torch.zeros(1, 3, 4, 4), torch.zeros(1, 4, 4, dtype=torch.bool), box, weight=1)
    assert alone[0, 0, 0].item() == pytest.approx(torch.sigmoid(torch.logit(torch.tensor(0.9)) / 2).item())
