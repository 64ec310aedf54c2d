"""From answers on a grid to masks cut to their box; expected values by hand."""

import numpy as np
import pytest

from pseudolabel.errors import RejectError
from pseudolabel.masks import Grid
from pseudolabel.prompted.masks import Answer, expected_iou, prompted_mask, reach_xyxy, stability

UNIT = Grid(0.0, 0.0, 1.0, 1.0, 8, 8)
WINDOW = (0, 0, 8, 8)


def _logits(rows: slice, columns: slice, shape: tuple[int, int] = (8, 8)) -> np.ndarray:
    values = np.full(shape, -10.0, dtype=np.float32)
    values[rows, columns] = 10.0
    return values


def test_the_reach_lies_where_the_level_is_crossed_between_centres() -> None:
    assert reach_xyxy(_logits(slice(2, 5), slice(1, 7)), UNIT, level=0) == (1, 2, 7, 5)
    steep = np.full((1, 4), -30.0, dtype=np.float32)
    steep[0, 1:3] = 10.0  # crossed a quarter of the way to the outer centre
    assert reach_xyxy(steep, Grid(0, 0, 2.0, 1.0, 1, 4), level=0) == pytest.approx((2.5, 0, 5.5, 1))


def test_a_mask_up_to_the_edge_of_its_grid_reaches_that_edge() -> None:
    assert reach_xyxy(_logits(slice(0, 8), slice(0, 8)), UNIT, level=0) == (0, 0, 8, 8)


def test_nothing_above_the_level_has_no_reach() -> None:
    assert reach_xyxy(np.full((8, 8), -1.0, dtype=np.float32), UNIT, level=0) is None


def test_the_box_is_compared_with_the_mask_before_it_is_cut() -> None:
    answer = Answer(_logits(slice(0, 4), slice(0, 8)), UNIT, WINDOW, "logit", 0.7)
    found = prompted_mask(answer, 3, (0.0, 0.0, 4.0, 4.0), (8, 8))
    assert found is not None
    assert (found.given, found.box_iou, found.reach_xyxy) == (3, 0.5, (0, 0, 8, 4))
    assert found.mask.grid == Grid(0.0, 0.0, 1.0, 1.0, 4, 4)
    assert (found.mask.probability == 255).all()
    assert found.box_score == pytest.approx(0.7)


def test_by_box_the_score_is_times_that_overlap() -> None:
    answer = Answer(_logits(slice(0, 4), slice(0, 8)), UNIT, WINDOW, "logit", 0.7)
    found = prompted_mask(answer, 0, (0.0, 0.0, 4.0, 4.0), (8, 8), by_box=True)
    assert found is not None
    assert found.box_score == pytest.approx(0.35)


def test_logits_are_read_between_cells_before_the_sigmoid() -> None:
    """Half-way between +10 and -2 the logit is +4: the sigmoid of the mean, not the mean of the sigmoids."""
    values = np.tile(np.array([10.0, -2.0], dtype=np.float32), (2, 1))
    answer = Answer(values, Grid(0, 0, 2.0, 2.0, 2, 2), (0, 0, 4, 4), "logit", 1.0)
    found = prompted_mask(answer, 0, (0.0, 0.0, 4.0, 4.0), (4, 4))
    assert found is not None
    logits = np.array([10, 7, 1, -2])  # at x = 0.5, 1.5, 2.5, 3.5; centres lie at 1 and 3
    expected = np.rint(255 / (1 + np.exp(-logits)))
    np.testing.assert_array_equal(found.mask.probability[1], expected)


def test_what_a_model_says_of_its_padding_is_no_part_of_the_mask() -> None:
    answer = Answer(_logits(slice(0, 8), slice(0, 8)), UNIT, (0, 0, 8, 4), "logit", 1.0)
    found = prompted_mask(answer, 0, (0.0, 0.0, 8.0, 4.0), (4, 8))
    assert found is not None
    assert (found.reach_xyxy, found.box_iou) == ((0, 0, 8, 4), 1.0)


@pytest.mark.parametrize(("score", "kept"), [(-0.0006, 0.0), (1.2, 1.0), (0.4, 0.4)])
def test_a_score_is_kept_in_its_range(score: float, kept: float) -> None:
    answer = Answer(_logits(slice(0, 4), slice(0, 4)), UNIT, WINDOW, "logit", score)
    found = prompted_mask(answer, 0, (0.0, 0.0, 4.0, 4.0), (8, 8))
    assert found is not None
    assert found.box_score == pytest.approx(kept)


def test_a_mask_beside_its_box_is_none() -> None:
    answer = Answer(_logits(slice(0, 3), slice(0, 3)), UNIT, WINDOW, "logit", 1.0)
    assert prompted_mask(answer, 0, (5.0, 5.0, 8.0, 8.0), (8, 8)) is None


@pytest.mark.parametrize("broken", [np.nan, np.inf])
def test_an_answer_that_is_not_finite_is_refused(broken: float) -> None:
    values = _logits(slice(0, 4), slice(0, 4))
    values[7, 7] = broken
    for answer in (
        Answer(values, UNIT, WINDOW, "logit", 1.0),
        Answer(np.nan_to_num(values), UNIT, WINDOW, "logit", broken),
    ):
        with pytest.raises(RejectError, match="non_finite"):
            prompted_mask(answer, 0, (0.0, 0.0, 4.0, 4.0), (8, 8))


def test_a_large_box_gets_at_most_128_cells_a_side() -> None:
    values = np.full((64, 64), 3.0, dtype=np.float32)
    answer = Answer(values, Grid(0, 0, 10.0, 10.0, 64, 64), (0, 0, 640, 640), "logit", 1.0)
    found = prompted_mask(answer, 0, (0.0, 0.0, 640.0, 64.0), (640, 640))
    assert found is not None
    assert found.mask.probability.shape == (64, 128)
    assert found.mask.grid.extent_xyxy == (0, 0, 640, 64)


def test_stability_is_the_iou_of_the_masks_at_plus_and_minus_one() -> None:
    assert stability(np.array([[2.0, 0.5, -0.5, -2.0]])) == pytest.approx(1 / 3)
    assert stability(np.full((2, 2), -5.0)) == 0


def test_the_expected_iou_of_an_alpha_is_by_hand() -> None:
    assert expected_iou(np.array([[1.0, 0.8, 0.2, 0.0]], dtype=np.float32)) == pytest.approx(1.8 / 2.2)
    assert expected_iou(np.zeros((2, 2), dtype=np.float32)) == 0
