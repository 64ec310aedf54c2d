"""Pairs, their paths, and the labels that T gives them."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pseudolabel.siseg.pairs import (
    pair_offsets,
    pair_sets,
    partners,
    path_cells,
    path_maximum,
    rank_cells,
    source_size,
)


@pytest.mark.parametrize(("radius", "count"), [(10, 152), (5, 34)], ids=["training", "walk"])
def test_pair_offsets_have_the_published_count(radius: int, count: int) -> None:
    assert len(pair_offsets(radius)) == count


@given(st.integers(2, 12))
def test_each_unordered_pair_inside_the_radius_appears_once(radius: int) -> None:
    offsets = pair_offsets(radius)
    both = set(offsets) | {(-y, -x) for y, x in offsets}
    disc = {(y, x) for y in range(-radius, radius + 1) for x in range(-radius, radius + 1) if y * y + x * x < radius**2}
    assert both == disc - {(0, 0)}
    assert len(both) == 2 * len(offsets)


@given(st.sampled_from(pair_offsets(10)))
def test_every_path_holds_both_ends_and_stays_within_a_cell_of_the_line(offset: tuple[int, int]) -> None:
    cells = path_cells(offset)
    assert {(0, 0), offset} <= set(cells)
    y, x = offset
    assert all(abs(x * cy - y * cx) / math.hypot(y, x) < 1 for cy, cx in cells)


def test_path_of_a_diagonal_step_is_its_whole_square() -> None:
    # (0, 1) and (1, 0) lie at distance 1/sqrt(2) of the diagonal
    assert set(path_cells((1, 1))) == {(0, 0), (0, 1), (1, 0), (1, 1)}


def test_sources_of_a_crop_of_512_pixels_are_119_by_110() -> None:
    assert source_size((128, 128), 10) == (119, 110)


def test_grid_smaller_than_its_pairs_is_refused() -> None:
    with pytest.raises(ValueError, match="too small"):
        source_size((8, 18), 10)


def test_transform_sorts_pairs_by_their_two_labels_and_leaves_ignored_ends_out() -> None:
    labels = torch.tensor([[[9, 0, 0, 7, 7, 8, 255, 9], [9, 0, 0, 7, 7, 8, 255, 9]]])
    right = [mask[0, 0, 0].tolist() for mask in pair_sets(labels, 2)]  # columns 1..6 against 2..7
    assert right == [
        [False, False, True, False, False, False],
        [True, False, False, False, False, False],
        [False, True, False, True, False, False],
    ]


@given(st.integers(0, 2**31 - 1))
def test_highest_rank_on_a_path_points_at_its_highest_cell(seed: int) -> None:
    grid = torch.rand((2, 9, 12), generator=torch.Generator().manual_seed(seed))
    ranks, order = rank_cells(grid)
    for offset in pair_offsets(3):
        found = order.gather(1, path_maximum(ranks, offset, 3).flatten(1).long())
        expected = torch.stack([partners(grid, cell, 3) for cell in path_cells(offset)]).amax(0)
        assert torch.equal(grid.flatten(1).gather(1, found).view_as(expected), expected)
