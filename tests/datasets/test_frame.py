"""The frame of boxes: where a rotation swaps a picture's sides, boxes tell which, and a hint never clips them."""

from typing import Any

import pytest

from pseudolabel.datasets.frame import check_frame
from pseudolabel.errors import RejectError
from pseudolabel.images import ImageHeader

# A phone's portrait: 400 x 300 as stored, 300 x 400 upright.
STORED, UPRIGHT = (300, 400), (400, 300)
TALL, WIDE, SMALL = [10, 20, 100, 370], [10, 20, 370, 100], [10, 20, 30, 40]


def said(claimed: Any, box: list[int] | None, rule: Any, orientation: int = 6) -> str:
    """What is refused; empty where the boxes are used in the frame that the rule gives."""
    height, width = STORED if rule == "ignore" or orientation == 1 else UPRIGHT
    header = ImageHeader(width, height, orientation, "JPEG")
    try:
        check_frame(claimed or (None, None), header, [box] if box else [], rule)
    except RejectError as error:
        return str(error).removeprefix("size_mismatch: ")
    return ""


@pytest.mark.parametrize("claimed", [UPRIGHT, STORED, None], ids=["upright", "stored", "no size"])
@pytest.mark.parametrize("rule", ["auto", "transpose"])
def test_boxes_that_fit_the_upright_picture_alone_are_used_whatever_size_is_claimed(claimed: Any, rule: str) -> None:
    assert not said(claimed, TALL, rule)
    assert "--exif transpose" in said(claimed, TALL, "ignore")


@pytest.mark.parametrize("claimed", [UPRIGHT, STORED, None], ids=["upright", "stored", "no size"])
@pytest.mark.parametrize("rule", ["auto", "transpose"])
def test_boxes_that_fit_the_stored_pixels_alone_are_never_clipped(claimed: Any, rule: str) -> None:
    assert "--exif ignore" in said(claimed, WIDE, rule)
    assert not said(claimed, WIDE, "ignore")


def test_where_boxes_fit_both_frames_the_claimed_size_decides_or_the_user() -> None:
    assert not said(UPRIGHT, SMALL, "auto")
    detail = said(STORED, SMALL, "auto")
    assert "--exif transpose" in detail
    assert "--exif ignore" in detail
    assert not said(STORED, SMALL, "transpose")
    assert not said(STORED, SMALL, "ignore")
    assert "--exif transpose" in said(UPRIGHT, SMALL, "ignore")


def test_an_image_without_boxes_is_used_whatever_size_is_claimed() -> None:
    assert not said(STORED, None, "auto")
    assert not said(UPRIGHT, None, "ignore")


def test_rounded_boxes_a_pixel_beyond_the_edge_still_fit() -> None:
    assert not said(UPRIGHT, [0, 0, 301, 401], "auto")


def test_without_a_rotation_a_wrong_size_is_a_wrong_size() -> None:
    assert "EXIF" not in said(UPRIGHT, TALL, "auto", orientation=1)
    assert not said(None, TALL, "auto", orientation=1)  # clipped by the stage, as ever
