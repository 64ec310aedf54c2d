"""Pairs, their paths, and the labels that T gives them."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pseudolabel.siseg.pairs import (
    CROWDED,
    box_owners,
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


def test_owners_are_the_first_and_last_box_of_the_cells_class_that_holds_its_middle() -> None:
    labels = torch.tensor([[1, 1, 1, 1, 1, 2, 0]])
    boxes = [(0.0, 0, 2.5, 1), (1.6, 0, 4, 1), (1.5, 0, 2.0, 1), (4, 0, 7, 1)]
    first, last = box_owners(labels, boxes, [1, 1, 1, 2])
    # middles 0.5 to 6.5: box 1 holds columns 0 to 1, box 2 columns 2 to 3, box 3 column 1, box 4 column 5 alone is 2's
    assert first[0].tolist() == [1, 1, 2, 2, 0, 4, 0]
    assert last[0].tolist() == [1, 3, 2, 2, 0, 4, 0]


def test_a_cell_of_three_boxes_is_crowded() -> None:
    owners = box_owners(torch.ones(1, 2), [(0, 0, 2, 1), (0, 0, 1, 1), (0, 0, 1, 1)], [1, 1, 1])
    assert owners[:, 0].tolist() == [[CROWDED, 1], [CROWDED, 1]]


# owners of two neighbours of one class, and whether they are told the same, told different, or are in no set
TOLD = {
    "one box": ((1, 1), (1, 1), "same"),
    "two boxes": ((1, 1), (2, 2), "different"),
    "where two boxes meet": ((1, 2), (1, 1), "neither"),
    "both where two boxes meet": ((1, 2), (1, 2), "neither"),
    "two pairs of boxes": ((1, 2), (3, 4), "different"),
    "pairs with one in common": ((1, 2), (2, 3), "neither"),
    "no box and one": ((0, 0), (1, 1), "same"),
    "no box at all": ((0, 0), (0, 0), "same"),
    "a crowd beside a box": ((CROWDED, CROWDED), (4, 4), "neither"),
    "two crowds": ((CROWDED, CROWDED), (CROWDED, CROWDED), "neither"),
    "a crowd beside none": ((CROWDED, CROWDED), (0, 0), "same"),
}


@pytest.mark.parametrize(("here", "there", "told"), TOLD.values(), ids=TOLD.keys())
@pytest.mark.parametrize("mirrored", [False, True], ids=["forth", "back"])
def test_boxes_tell_objects_of_one_class_apart(here, there, told: str, mirrored: bool) -> None:
    left, right = (there, here) if mirrored else (here, there)
    owners = torch.tensor([[[[0, left[i], right[i], 0]] * 2 for i in (0, 1)]])
    labels = torch.tensor([[[0, 7, 7, 0]] * 2])
    sets = pair_sets(labels, 2, owners)
    found = {name: bool(mask[0, 0, 0, 0]) for name, mask in zip(("same", "ground", "different"), sets, strict=True)}
    assert found == {"same": told == "same", "ground": False, "different": told == "different"}


def test_without_boxes_pairs_are_what_their_classes_say() -> None:
    labels = torch.randint(0, 3, (2, 12, 20), generator=torch.Generator().manual_seed(0))
    owners = torch.zeros(2, 2, 12, 20, dtype=torch.int16)
    for one, other in zip(pair_sets(labels, 4, owners), pair_sets(labels, 4), strict=True):
        assert torch.equal(one, other)
