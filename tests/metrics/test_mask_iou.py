"""IoU per object: closed forms, and agreement with a count of pixels."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pseudolabel.metrics.mask_iou import box_mask, ellipse_mask, object_ious, rle_iou, size_name
from pseudolabel.metrics.objects import Prediction, TrueObject, read_truth
from pseudolabel.rle import decode, encode

from .content import annotation, coco, rectangle


def prediction(key: int, box: tuple[int, int, int, int], image_id: int = 1) -> Prediction:
    return Prediction(key, image_id, 1, rectangle(*box), 0.5, None)


def objects(*boxes: tuple[int, int, int, int]) -> tuple[TrueObject, ...]:
    return read_truth(coco([annotation(n + 1, box) for n, box in enumerate(boxes)])).objects


def test_half_shifted_squares_overlap_by_a_third() -> None:
    assert rle_iou(rectangle(0, 0, 10, 10), rectangle(5, 0, 10, 10)) == pytest.approx(50 / 150)


@given(st.integers(0, 2**32 - 1), st.floats(0.01, 0.99))
def test_iou_is_the_count_of_shared_pixels_over_the_count_of_all(seed: int, density: float) -> None:
    random = np.random.default_rng(seed)
    first, second = random.random((2, 13, 9)) < density
    union = (first | second).sum()
    expected = (first & second).sum() / union if union else 0.0
    assert rle_iou(encode(first), encode(second)) == pytest.approx(expected)


def test_each_object_is_compared_with_the_mask_of_its_own_id_and_a_missing_one_counts_zero() -> None:
    truth = objects((0, 0, 10, 10), (50, 50, 20, 20), (0, 60, 10, 10))
    found = [prediction(2, (50, 50, 20, 10)), prediction(1, (0, 0, 10, 10)), prediction(7, (0, 60, 10, 10))]
    assert object_ious(truth, found) == pytest.approx([1.0, 0.5, 0.0])


def test_a_mask_of_the_same_id_on_another_image_does_not_count() -> None:
    assert object_ious(objects((0, 0, 10, 10)), [prediction(1, (0, 0, 10, 10), image_id=2)]) == pytest.approx([0.0])


def test_a_box_covers_the_pixels_whose_centres_lie_in_it_and_ends_at_the_image() -> None:
    covered = decode(box_mask((2.6, 3.0, 2.0, 1.2), (6, 8)))
    expected = np.zeros((6, 8), bool)
    expected[3, 3:5] = True  # centres 2.5 and 5.5 lie beside 2.6 to 4.6, row 4 with 4.5 below 4.2
    assert np.array_equal(covered, expected)
    assert decode(box_mask((5.0, 4.0, 50.0, 50.0), (6, 8))).sum() == 3 * 2


def test_an_ellipse_covers_the_pixels_whose_centres_lie_in_it() -> None:
    covered = decode(ellipse_mask((1.0, 1.0, 4.0, 4.0), (7, 7)))
    expected = np.zeros((7, 7), bool)
    expected[1:5, 1:5] = True
    expected[[1, 1, 4, 4], [1, 4, 1, 4]] = False  # the corners' centres are 2.12 from the middle, the radius is 2
    assert np.array_equal(covered, expected)
    large = decode(ellipse_mask((10.0, 20.0, 300.0, 200.0), (240, 320)))
    assert large.sum() == pytest.approx(np.pi / 4 * 300 * 200, rel=1e-3)


@pytest.mark.parametrize(
    ("area_px", "name"),
    [(1023, "small"), (1024, "medium"), (9215, "medium"), (9216, "large")],
    ids=str,
)
def test_sizes_change_at_coco_limits(area_px: int, name: str) -> None:
    assert size_name(area_px) == name
