"""Boxes: conversions by hand, IoU against torchvision, and the check of untrusted ones."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.ops import box_iou

from pseudolabel.boxes import (
    check_xywh,
    clip_xywh,
    clip_xyxy,
    cxcywh_to_xywh,
    iou_matrix,
    overlapped,
    xywh_to_xyxy,
    xyxy_to_xywh,
)
from pseudolabel.errors import RejectError

coordinate = st.floats(-50, 50, width=32)
box = st.tuples(coordinate, coordinate, st.floats(0, 60, width=32), st.floats(0, 60, width=32))


def test_conversions_follow_the_names() -> None:
    assert xywh_to_xyxy(np.array([[2.0, 3.0, 10.0, 20.0]])).tolist() == [[2, 3, 12, 23]]
    assert xyxy_to_xywh(np.array([[2.0, 3.0, 12.0, 23.0]])).tolist() == [[2, 3, 10, 20]]
    assert cxcywh_to_xywh(np.array([7.0, 13.0, 10.0, 20.0])).tolist() == [2, 3, 10, 20]


def test_clipping_many_boxes_keeps_the_part_on_the_image() -> None:
    clipped = clip_xyxy(np.array([[-5.0, -5.0, 5.0, 5.0], [90.0, 40.0, 200.0, 60.0]]), (50, 100))
    assert clipped.tolist() == [[0, 0, 5, 5], [90, 40, 100, 50]]


@given(st.lists(box, min_size=1, max_size=6), st.lists(box, min_size=1, max_size=6))
def test_iou_is_torchvisions_and_zero_instead_of_nan(first: list, second: list) -> None:
    a, b = xywh_to_xyxy(np.array(first)), xywh_to_xyxy(np.array(second))
    expected = torch.nan_to_num(box_iou(torch.from_numpy(a), torch.from_numpy(b)), nan=0.0).numpy()
    np.testing.assert_allclose(iou_matrix(a, b), expected, atol=1e-12)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        pytest.param(None, "bad_box", id="absent"),
        pytest.param("1,2,3,4", "bad_box", id="text"),
        pytest.param([1, 2, 3], "bad_box", id="three numbers"),
        pytest.param([1, 2, 3, 4, 5], "bad_box", id="five numbers"),
        pytest.param([1, 2, 3, True], "bad_box", id="bool"),
        pytest.param([1, 2, "3", 4], "bad_box", id="digits in text"),
        pytest.param([1, 2, math.nan, 4], "bad_box", id="nan"),
        pytest.param([math.inf, 2, 3, 4], "bad_box", id="inf"),
        pytest.param([10**400, 2, 3, 4], "bad_box", id="400 digits"),
        pytest.param([1, 2, -3, 4], "bad_box", id="inverted"),
        pytest.param([1, 2, 0, 4], "empty_box", id="no width"),
        pytest.param([1, 2, 3, 1e-300], "empty_box", id="a height that changes nothing"),
        pytest.param([[1, 2, 3, 4]], "bad_box", id="nested"),
    ],
)
def test_a_damaged_box_is_refused_with_its_reason(value: object, reason: str) -> None:
    with pytest.raises(RejectError) as caught:
        check_xywh(value)
    assert caught.value.reason == reason


def test_a_box_inside_the_image_comes_back_bit_for_bit() -> None:
    inside = (0.1, 0.2, 99.3, 49.7)
    assert clip_xywh(inside, (50, 100)) == inside


def test_a_box_partly_outside_keeps_its_part_inside() -> None:
    assert clip_xywh((-10.0, 20.0, 30.0, 1e308), (50, 100)) == (0.0, 20.0, 20.0, 30.0)


@pytest.mark.parametrize("bbox", [(100.0, 0.0, 5.0, 5.0), (0.0, -5.0, 5.0, 5.0), (-9.0, 0.0, 4.0, 5.0)])
def test_a_box_beside_the_image_is_refused(bbox: tuple[float, float, float, float]) -> None:
    with pytest.raises(RejectError, match="beside the image"):
        clip_xywh(bbox, (50, 100))


@given(box)
def test_a_clipped_box_lies_on_the_image(bbox: tuple[float, float, float, float]) -> None:
    try:
        x, y, width, height = clip_xywh(check_xywh(list(bbox)), (20, 30))
    except RejectError:
        return
    assert x >= 0
    assert y >= 0
    assert width > 0
    assert height > 0
    assert x + width <= 30 + 1e-9
    assert y + height <= 20 + 1e-9


def test_boxes_that_share_area_are_overlapped_and_boxes_that_touch_are_not() -> None:
    boxes = np.array([[0, 0, 10, 10], [10, 0, 20, 10], [15, 5, 30, 30], [16, 6, 17, 7], [50, 50, 60, 60]], np.float64)
    assert overlapped(boxes).tolist() == [False, True, True, True, False]
    assert overlapped(boxes[:0]).tolist() == []
