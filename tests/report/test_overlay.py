"""Overlay pictures: what is tinted, outlined and left alone, and the order of a contact sheet."""

import numpy as np
import pytest

from pseudolabel.masks import PixelMask
from pseudolabel.report.overlay import (
    TRUTH_COLOR,
    DrawnObject,
    SheetEntry,
    color_of,
    contact_sheet,
    even_places,
    overlay_picture,
)

GREY = np.full((20, 30, 3), 100, dtype=np.uint8)
SQUARE = PixelMask(4, 5, np.ones((6, 8), bool))


def test_only_the_mask_is_touched_its_rim_in_full_colour_and_its_inside_tinted() -> None:
    picture = overlay_picture(GREY, [DrawnObject(SQUARE)])
    touched = (picture != GREY).any(2)
    expected = np.zeros((20, 30), bool)
    expected[5:11, 4:12] = True
    assert np.array_equal(touched, expected)
    assert tuple(picture[5, 4]) == color_of(0)
    inside = np.round(100 + 0.45 * (np.array(color_of(0)) - 100))
    assert np.array_equal(picture[7, 7], inside)
    assert GREY.max() == 100  # the image given stays as it was


def test_a_mask_with_a_hole_shows_the_image_through_it() -> None:
    ring = np.ones((9, 9), bool)
    ring[3:6, 3:6] = False
    picture = overlay_picture(GREY, [DrawnObject(PixelMask(0, 0, ring))])
    assert np.array_equal(picture[4, 4], GREY[4, 4])


def test_truth_is_outlined_in_white_and_the_box_in_the_objects_colour() -> None:
    truth = PixelMask(20, 12, np.ones((5, 5), bool))
    picture = overlay_picture(GREY, [DrawnObject(SQUARE, box_xyxy=(2.0, 3.0, 15.0, 13.0), truth=truth)])
    assert tuple(picture[12, 20]) == TRUTH_COLOR
    assert np.array_equal(picture[14, 22], GREY[14, 22])
    assert tuple(picture[3, 2]) == tuple(picture[12, 14]) == color_of(0)


def test_a_scaled_picture_is_larger_and_a_label_is_drawn_on_it() -> None:
    plain = overlay_picture(GREY, [DrawnObject(SQUARE)], scale=3)
    labelled = overlay_picture(GREY, [DrawnObject(SQUARE, label="cat 0.9")], scale=3)
    assert plain.shape == (60, 90, 3)
    assert (plain != labelled).any()


def test_objects_in_a_row_have_different_colours() -> None:
    colours = np.array([color_of(place) for place in range(12)], dtype=int)
    gaps = np.abs(colours[:, None] - colours[None]).max(2) + 999 * np.eye(12, dtype=int)
    assert gaps.min() >= 25


def entry(score: float, value: int) -> SheetEntry:
    image = np.full((40, 40, 3), value, dtype=np.uint8)
    return SheetEntry(image, DrawnObject(PixelMask(18, 18, np.ones((4, 4), bool))), score)


def test_a_sheet_goes_from_the_worst_to_the_best_and_fills_its_last_row_with_black() -> None:
    sheet = contact_sheet([entry(0.9, 200), entry(0.1, 50), entry(0.5, 120)], columns=2, cell_px=64)
    assert sheet.shape == (128, 128, 3)
    corners = [sheet[60, 60, 0], sheet[60, 124, 0], sheet[124, 60, 0], sheet[124, 124, 0]]
    assert corners == [50, 120, 200, 0]


def test_a_sheet_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="no objects"):
        contact_sheet([])


def test_an_object_at_the_border_is_shown_whole() -> None:
    corner = SheetEntry(GREY, DrawnObject(PixelMask(0, 0, np.ones((3, 3), bool))), 0.5)
    sheet = contact_sheet([corner], columns=1, cell_px=96)
    rim = np.array(color_of(0))
    assert (np.abs(sheet.astype(int) - rim).max(2) < 10).sum() > 20


def test_even_places_hold_the_first_the_last_and_even_steps_between() -> None:
    assert even_places(101, 5) == [0, 25, 50, 75, 100]
    assert even_places(3, 20) == [0, 1, 2]
    assert even_places(0, 5) == []
    assert even_places(5, 0) == []
