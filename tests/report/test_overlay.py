"""Overlay pictures: what is tinted, outlined and left alone, and the order of a contact sheet."""

import numpy as np
import pytest
from PIL import Image, ImageDraw

from pseudolabel import rle
from pseudolabel.masks import Grid, PixelMask, SoftMask
from pseudolabel.report.overlay import (
    TRUTH_COLOR,
    DrawnObject,
    Frame,
    color_of,
    contact_sheet,
    even_places,
    fitting_scale,
    object_picture,
    overlay_picture,
    sheet_layout,
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
    inside = np.round(100 + 0.25 * (np.array(color_of(0)) - 100))
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


def test_a_small_object_is_drawn_above_a_large_one_whatever_their_order() -> None:
    small, large = (
        DrawnObject(PixelMask(6, 6, np.ones((3, 3), bool))),
        DrawnObject(PixelMask(0, 0, np.ones((20, 30), bool))),
    )
    for objects in ([small, large], [large, small]):
        picture = overlay_picture(GREY, objects)
        assert tuple(picture[6, 6]) == color_of(objects.index(small))


@pytest.mark.parametrize("scale", [0.3, 0.5, 1, 2.7], ids=str)
def test_an_encoded_mask_is_sampled_where_its_pixels_are(scale: float) -> None:
    random = np.random.default_rng(1)
    pixels = random.random((37, 53)) < 0.5
    image = np.zeros((60, 80, 3), dtype=np.uint8)
    frame = Frame.of(image, (-4, 3, 71, 58), scale)
    crop = PixelMask(11, 9, pixels)
    expected, got = frame.mask(crop), frame.mask(rle.encode_crop(crop, (60, 80)))
    assert expected[:2] == got[:2]
    assert np.array_equal(expected[2], got[2])


def test_probabilities_are_drawn_from_one_half_on() -> None:
    probability = np.array([[0, 255], [127, 128]], dtype=np.uint8)
    soft = SoftMask(Grid(4.0, 5.0, 1.0, 1.0, 2, 2), probability)
    picture = overlay_picture(GREY, [DrawnObject(soft)])
    touched = np.argwhere((picture != GREY).any(2)).tolist()
    assert touched == [[5, 5], [6, 5]]


def test_a_reduced_picture_has_the_mean_of_its_pixels() -> None:
    image = np.zeros((8, 8, 3), dtype=np.uint8)
    image[:, ::2] = 200
    assert (overlay_picture(image, [], scale=0.25) == 100).all()


def test_an_encoded_mask_is_drawn_as_its_pixels_are() -> None:
    encoded = rle.encode_crop(SQUARE, (20, 30))
    assert np.array_equal(overlay_picture(GREY, [DrawnObject(encoded)]), overlay_picture(GREY, [DrawnObject(SQUARE)]))


def test_a_part_of_the_image_is_what_the_whole_picture_has_there() -> None:
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    objects = [DrawnObject(SQUARE, box_xyxy=(2.0, 3.0, 15.0, 13.0))]
    whole = overlay_picture(image, objects, scale=3)
    part = overlay_picture(image, objects, scale=3, window=(1, 2, 17, 15))
    assert np.array_equal(part, whole[6:45, 3:51])


def test_what_lies_outside_the_image_is_black() -> None:
    part = overlay_picture(GREY, [], window=(-5, -4, 5, 4))
    assert (part[:4] == 0).all()
    assert (part[:, :5] == 0).all()
    assert (part[4:, 5:] == 100).all()


def test_a_picture_of_half_the_size_keeps_masks_and_boxes_in_place() -> None:
    image = np.full((200, 300, 3), 100, dtype=np.uint8)
    mask = PixelMask(40, 60, np.ones((80, 100), bool))
    picture = overlay_picture(image, [DrawnObject(mask)], scale=0.5)
    touched = (picture != 100).any(2)
    expected = np.zeros((100, 150), bool)
    expected[30:70, 20:70] = True
    assert np.array_equal(touched, expected)


@pytest.mark.parametrize(
    ("size_hw", "scale"), [((400, 300), 2.0), ((800, 600), 2.0), ((8000, 6000), 0.2)], ids=["small", "just", "large"]
)
def test_no_picture_is_longer_than_1600_pixels(size_hw: tuple[int, int], scale: float) -> None:
    assert fitting_scale(size_hw) == scale
    assert fitting_scale(size_hw, most=1) == min(1, scale)


def test_a_sheet_is_filled_row_by_row_and_its_last_row_with_black() -> None:
    cells = [np.full((64, 64, 3), value, dtype=np.uint8) for value in (50, 120, 200)]
    sheet = contact_sheet(cells, columns=2)
    assert sheet.shape == (128, 128, 3)
    corners = [sheet[60, 60, 0], sheet[60, 124, 0], sheet[124, 60, 0], sheet[124, 124, 0]]
    assert corners == [50, 120, 200, 0]


def test_a_sheet_of_many_objects_has_smaller_cells_and_not_more_pixels() -> None:
    assert sheet_layout(36) == (6, 192)
    assert sheet_layout(400) == (20, 80)


def test_the_caption_of_an_object_is_its_label_alone() -> None:
    image = np.full((40, 40, 3), 90, dtype=np.uint8)
    mask = PixelMask(18, 18, np.ones((4, 4), bool))
    plain, named = (object_picture(image, DrawnObject(mask, label), side_px=96) for label in ("", "person 0.80"))
    width = ImageDraw.Draw(Image.new("RGB", (1, 1))).textlength("person 0.80")
    touched = np.argwhere((plain != named).any(2)).max(0)
    assert touched[1] <= width + 6
    assert (plain != named).any()


def test_a_sheet_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="no objects"):
        contact_sheet([])


def test_an_object_at_the_border_is_shown_whole() -> None:
    cell = object_picture(GREY, DrawnObject(PixelMask(0, 0, np.ones((3, 3), bool))), side_px=96)
    rim = np.array(color_of(0))
    assert (np.abs(cell.astype(int) - rim).max(2) < 10).sum() > 20


def test_even_places_hold_the_first_the_last_and_even_steps_between() -> None:
    assert even_places(101, 5) == [0, 25, 50, 75, 100]
    assert even_places(3, 20) == [0, 1, 2]
    assert even_places(0, 5) == []
    assert even_places(5, 0) == []
