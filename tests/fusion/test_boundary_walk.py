"""The walk on a fused mask: what is undecided follows what is sure on its side of a boundary."""

import numpy as np
import pytest

from pseudolabel.fusion.boundary_walk import by_boundary
from pseudolabel.fusion.refine import Refinement, refine
from pseudolabel.masks import Grid, SoftMask

WINDOW = Grid(8.0, 8.0, 1.0, 1.0, 24, 24)


def boundary(cells: np.ndarray) -> SoftMask:
    """Cells of a pixel over an image of 40 x 40."""
    return SoftMask(Grid(0.0, 0.0, 1.0, 1.0, 40, 40), (cells * 255).astype(np.uint8))


def ring() -> np.ndarray:
    """A closed contour around the pixels 14 to 25 of both axes, three cells thick."""
    cells = np.zeros((40, 40))
    cells[11:29, 11:29] = 1
    cells[14:26, 14:26] = 0
    return cells


def seeds() -> np.ndarray:
    """One sure pixel inside the contour, a sure rim of background at the window's sides, the rest undecided."""
    probability = np.full((24, 24), 0.5, np.float32)
    probability[12, 12] = 1
    probability[[0, -1]] = 0
    probability[:, [0, -1]] = 0
    return probability


def test_a_seed_fills_its_contour_and_nothing_beyond() -> None:
    walked = by_boundary(seeds(), WINDOW, boundary(ring()), steps=256)
    assert walked[6:18, 6:18].min() > 0.99
    outside = np.ones((24, 24), bool)
    outside[3:21, 3:21] = False
    assert walked[outside].max() < 0.01


def test_without_a_boundary_the_background_around_wins() -> None:
    """The same seeds: one pixel against the whole surroundings."""
    walked = by_boundary(seeds(), WINDOW, boundary(np.zeros((40, 40))), steps=256)
    assert walked[12, 12] == 1  # sure of itself
    walked[12, 12] = 0
    assert walked.max() < 0.5


def test_sure_pixels_stay_as_they_are() -> None:
    random = np.random.default_rng(0)
    sure = (random.random((24, 24)) > 0.5).astype(np.float32)
    cells = random.random((40, 40))
    np.testing.assert_array_equal(by_boundary(sure, WINDOW, boundary(cells), steps=64), sure)


def test_refining_by_a_walk_needs_the_boundaries() -> None:
    with pytest.raises(ValueError, match="needs the image's boundaries"):
        refine(seeds(), WINDOW, Refinement("walk"))
