"""Outlines: rings along pixel edges, whose filling is the mask again, whoever fills them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from matplotlib.path import Path as Polygon
from scipy import ndimage

from pseudolabel import rle
from pseudolabel.formats.outlines import INSET_PX, joined, mask_parts, one_ring, ring_area
from pseudolabel.formats.profile import filled
from pseudolabel.masks import PixelMask

MASKS = arrays(np.bool_, st.tuples(st.integers(1, 9), st.integers(1, 9))).filter(lambda mask: mask.any())


def _mask(text: str) -> np.ndarray:
    return np.array([[sign == "#" for sign in line] for line in text.split()])


def _filled(rings: list[np.ndarray], size_hw: tuple[int, int]) -> np.ndarray:
    return rle.decode(filled([ring.ravel().tolist() for ring in rings], size_hw))


def test_a_rectangle_has_four_corners_clockwise_a_twentieth_within_its_edges() -> None:
    (part,) = mask_parts(PixelMask(3, 5, np.ones((2, 4), bool)))
    a = INSET_PX
    assert part.outer == pytest.approx(np.array([[3 + a, 5 + a], [7 - a, 5 + a], [7 - a, 7 - a], [3 + a, 7 - a]]))
    assert ring_area(part.outer) == pytest.approx(3.9 * 1.9)
    assert part.holes == ()


def test_pixels_that_touch_at_a_corner_are_two_parts_either_way() -> None:
    for text in ("#. .#", ".# #."):
        parts = mask_parts(PixelMask(0, 0, _mask(text)))
        assert [part.area_px for part in parts] == pytest.approx([0.81, 0.81])


def test_a_hole_belongs_to_the_part_around_it_and_the_island_within_is_a_part_of_its_own() -> None:
    mask = _mask("####### #.....# #.###.# #.#.#.# #.###.# #.....# #######")
    outer, island = mask_parts(PixelMask(0, 0, mask))
    assert [len(outer.holes), len(island.holes)] == [1, 1]
    assert [ring_area(part.holes[0]) for part in (outer, island)] == pytest.approx([-(5.1**2), -(1.1**2)])


def test_holes_that_touch_at_a_corner_are_one_hole() -> None:
    (part,) = mask_parts(PixelMask(0, 0, _mask("#### #.## ##.# ####")))
    assert len(part.holes) == 1


@given(MASKS)
def test_parts_are_those_of_scipy_the_largest_first(mask: np.ndarray) -> None:
    parts = mask_parts(PixelMask(0, 0, mask))
    assert len(parts) == ndimage.label(mask)[1]
    areas = [part.area_px for part in parts]
    assert areas == sorted(areas, reverse=True)


@given(MASKS)
def test_rings_of_parts_filled_by_pycocotools_are_the_mask(mask: np.ndarray) -> None:
    parts = mask_parts(PixelMask(0, 0, mask))
    one_by_one = [_filled([one_ring(part)], mask.shape) for part in parts]
    assert (np.sum(one_by_one, axis=0) == mask).all()


@given(MASKS)
def test_all_parts_joined_to_one_ring_are_still_the_mask(mask: np.ndarray) -> None:
    ring = joined([one_ring(part) for part in mask_parts(PixelMask(0, 0, mask))])
    assert (_filled([ring], mask.shape) == mask).all()


@given(MASKS)
def test_filled_outlines_are_the_mask_without_its_holes(mask: np.ndarray) -> None:
    for part in mask_parts(PixelMask(0, 0, mask)):
        without = ndimage.binary_fill_holes(_filled([one_ring(part)], mask.shape), structure=np.ones((3, 3)))
        assert (_filled([part.outer], mask.shape) == without).all()


@given(MASKS)
def test_matplotlib_finds_the_centres_of_the_same_pixels_inside(mask: np.ndarray) -> None:
    y, x = np.indices(mask.shape)
    centres = np.stack([x.ravel(), y.ravel()], 1) + 0.5
    inside = np.zeros(mask.size, bool)
    for part in mask_parts(PixelMask(0, 0, mask)):
        within = Polygon(part.outer).contains_points(centres)
        for hole in part.holes:
            within &= ~Polygon(hole).contains_points(centres)
        inside |= within
    assert (inside.reshape(mask.shape) == mask).all()


@given(MASKS)
def test_corners_cut_to_whole_pixels_are_pixels_of_the_mask(mask: np.ndarray) -> None:
    """What `cv2.fillPoly` paints of the line itself is no pixel too many."""
    for part in mask_parts(PixelMask(0, 0, mask)):
        for ring in (part.outer, *part.holes):
            x, y = ring.astype(int).T
            assert mask[y, x].all()
