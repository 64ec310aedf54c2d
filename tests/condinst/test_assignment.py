"""Locations, assignment and the choice of positives by hand."""

import torch

from pseudolabel.condinst.assignment import assign, level_ranges, top_positives
from pseudolabel.condinst.fcos import Locations

SIZES = ((8, 12), (4, 6), (2, 3), (1, 2), (1, 1))


def grid() -> Locations:
    return Locations.of(SIZES, torch.device("cpu"))


def test_locations_are_the_middles_of_their_cells():
    locations = grid()
    assert locations.xy[0].tolist() == [4, 4]
    assert locations.xy[13].tolist() == [12, 12]
    assert locations.first == (0, 96, 120, 126, 128)
    assert locations.xy[96 + 7].tolist() == [24, 24]
    assert locations.xy[128].tolist() == [64, 64]
    assert locations.size_of_interest[[0, 96, 120, 126, 128]].tolist() == [64, 128, 256, 512, 1024]


def test_a_small_box_is_learned_by_the_fine_locations_around_its_middle():
    assigned = assign(grid(), torch.tensor([[10.0, 10, 40, 30]]))
    places = {tuple(xy) for xy in grid().xy[assigned == 0].tolist()}
    # within 12 px of (25, 20), strictly inside the box
    assert places == {(x, y) for x in (20, 28, 36) for y in (12, 20, 28)}


def test_a_location_on_the_border_of_the_centre_square_learns_nothing():
    assigned = assign(grid(), torch.tensor([[0.0, 0, 32, 32]]))  # middle 16, square 4 to 28: 4 and 28 are on it
    assert sorted({xy[0] for xy in grid().xy[assigned == 0].tolist()}) == [12, 20]


def test_of_two_objects_the_smaller_takes_the_location():
    boxes = torch.tensor([[0.0, 0, 60, 60], [20, 20, 40, 40]])
    assigned = assign(grid(), boxes)
    assert assigned[grid().xy.tolist().index([28.0, 28.0])] == 1
    assert assigned[grid().xy.tolist().index([36.0, 28.0])] == 1


def test_the_farthest_side_decides_the_level():
    assigned = assign(grid(), torch.tensor([[0.0, 0, 120, 64]]))
    chosen = {entry for entry, owner in zip(_entries(), assigned.tolist(), strict=True) if owner == 0}
    # stride 8, within 12 px of x = 60: only 60 is at most 64 px from both ends
    assert {entry for entry in chosen if entry[0] == 0} == {(0, 60.0, y) for y in (28.0, 36.0)}
    # stride 16, within 24 px: 40 and 72 are 80 and 72 px away, 56 exactly 64, which is the range's closed end
    assert {entry[1] for entry in chosen if entry[0] == 1} == {40.0, 56.0, 72.0}
    assert {entry[0] for entry in chosen} == {0, 1}


def _entries():
    return [(level, *xy) for level, xy in zip(grid().level.tolist(), grid().xy.tolist(), strict=True)]


def test_the_centre_of_mass_moves_the_positives():
    box = torch.tensor([[0.0, 0, 60, 60]])
    moved = assign(grid(), box, torch.tensor([[50.0, 50.0]]))
    places = {tuple(xy) for xy in grid().xy[moved == 0].tolist()}
    assert places
    assert all(abs(x - 50) < 12 and abs(y - 50) < 12 for x, y in places)


def test_no_box_makes_everything_background():
    assert (assign(grid(), torch.zeros(0, 4)) == -1).all()


def test_every_object_trains_with_the_same_number_of_its_best_positives():
    score = torch.tensor([0.1, 0.9, 0.5, 0.3, 0.7, 0.2, 0.8])
    owner = torch.tensor([0, 0, 0, 1, 1, 3, 3])
    image = torch.tensor([0, 0, 0, 0, 0, 1, 1])
    # two objects in image 0: 2 each of 4; one object in image 1: up to 4
    assert top_positives(score, owner, image, per_image=4).tolist() == [1, 2, 3, 4, 5, 6]
    # more objects than places: each still has one
    assert top_positives(score, owner, image, per_image=1).tolist() == [1, 4, 6]
    assert top_positives(score[:0], owner[:0], image[:0]).tolist() == []


def test_a_smaller_finest_range_moves_objects_to_coarser_levels():
    box = torch.tensor([[40.0, 40, 100, 100]])  # 30 px from its middle, 52 px from 48, a location of level 2
    assert set(grid().level[assign(grid(), box) == 0].tolist()) == {0}
    assert set(grid().level[assign(grid(), box, finest_px=25.0) == 0].tolist()) == {1, 2}


def test_ranges_of_levels_double_and_meet():
    assert level_ranges(64.0) == ((-1.0, 64.0), (64.0, 128.0), (128.0, 256.0), (256.0, 512.0), (512.0, 1e8))
    assert level_ranges(25.0)[:2] == ((-1.0, 25.0), (25.0, 50.0))
