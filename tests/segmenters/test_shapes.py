"""Shapes that an object may have in its box, and which of them box and colours find."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pseudolabel.candidates import GivenBox
from pseudolabel.masks import Grid, resample
from pseudolabel.segmenters import candidates as module
from pseudolabel.segmenters.candidates import color_candidates
from pseudolabel.segmenters.shapes import ROUND, STICKS, Shape

BOX = (20.0, 20.0, 140.0, 100.0)
SIZE_HW = (120, 160)
GRID = Grid(0, 0, 1, 1, *SIZE_HW)


def test_the_round_shape_touches_the_middles_of_the_sides() -> None:
    radius = ROUND.squared_radius(Grid(0, 0, 1, 1, 5, 5), (0, 0, 5, 5))
    assert radius[2, 2] == 0
    assert radius[2, 4] == pytest.approx((2 / 2.5) ** 2)
    np.testing.assert_array_equal(radius, radius.T)


@pytest.mark.parametrize(("slope", "corner"), [(1, (0, 0)), (-1, (0, 4))])
def test_a_stick_lies_along_its_diagonal(slope: int, corner: tuple[int, int]) -> None:
    radius = Shape(slope, 0.5).squared_radius(Grid(0, 0, 1, 1, 5, 5), (0, 0, 5, 5))
    assert radius[corner] < 1
    assert radius[corner[0], 4 - corner[1]] > 1
    np.testing.assert_allclose(radius, radius[::-1, ::-1])


def _stick(half_px: float, *, rising: bool) -> np.ndarray:
    """A stick between two corners of the box, as thick as twice `half_px`."""
    y, x = np.mgrid[: SIZE_HW[0], : SIZE_HW[1]] + 0.5
    left, top, right, bottom = BOX
    step = np.array([right - left, top - bottom if rising else bottom - top])
    start = (left, bottom if rising else top)
    across = ((x - start[0]) * step[1] - (y - start[1]) * step[0]) / np.hypot(*step)
    inside = (x > left) & (x < right) & (y > top) & (y < bottom)
    return (np.abs(across) < half_px) & inside


def _picture(mask: np.ndarray, seed: int) -> np.ndarray:
    """The object in one colour on a plain ground that reaches beyond its box."""
    rgb = np.full((*SIZE_HW, 3), (100.0, 100, 100))
    rgb[mask] = (170.0, 70, 60)
    noise = np.random.default_rng(seed).normal(0, 3, (*SIZE_HW, 3))
    return np.clip(rgb + noise, 0, 255).astype(np.uint8)


def _iou_of_colours(mask: np.ndarray, seed: int) -> float:
    found = color_candidates([GivenBox(1, 7, (20.0, 20.0, 120.0, 80.0))], _picture(mask, seed))
    seen = resample(found[0].mask.probability / np.float32(255), found[0].mask.grid, GRID) > 0.5
    return float((seen & mask).sum() / (seen | mask).sum())


@pytest.mark.parametrize("rising", [False, True])
def test_a_slanted_object_is_no_longer_lost_in_an_ellipse(rising: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    mask = _stick(8, rising=rising)
    assert _iou_of_colours(mask, 0) > 0.9
    monkeypatch.setattr(module, "STICKS", ())
    assert _iou_of_colours(mask, 0) < 0.4


@given(st.integers(0, 50))
def test_what_fills_its_box_is_left_to_the_round_shape(seed: int) -> None:
    y, x = np.mgrid[: SIZE_HW[0], : SIZE_HW[1]] + 0.5
    disc = ((x - 80) / 60) ** 2 + ((y - 60) / 40) ** 2 < 1
    assert _iou_of_colours(disc, seed) > 0.93


def test_sticks_lie_on_both_diagonals() -> None:
    assert {stick.slope for stick in STICKS} == {1, -1}
