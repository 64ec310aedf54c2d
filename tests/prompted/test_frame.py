"""Where boxes lie in a model's input and where its answers lie on the image; expected values by hand."""

import numpy as np
import pytest

from pseudolabel.prompted.frame import frame_of, window_around
from pseudolabel.prompted.views import views_of


def test_a_padded_frame_brings_the_longer_side_to_the_input_and_rounds_the_shorter_one() -> None:
    frame = frame_of((0, 0, 640, 427), 1024, "padded")
    assert frame.factor_xy == pytest.approx((1.6, 683 / 427))  # 427 x 1.6 = 683.2
    np.testing.assert_allclose(frame.prompts(np.array([[64.0, 42.7, 128.0, 427.0]])), [[102.4, 68.3, 204.8, 683.0]])


def test_a_stretched_frame_brings_both_sides_to_the_input() -> None:
    frame = frame_of((0, 0, 640, 320), 1024, "stretched")
    np.testing.assert_allclose(frame.prompts(np.array([[64.0, 32.0, 640.0, 320.0]])), [[102.4, 102.4, 1024.0, 1024.0]])


def test_the_cells_of_an_answer_cover_the_input_so_that_padding_lies_beyond_the_image() -> None:
    grid = frame_of((0, 0, 64, 32), 64, "padded").grid((16, 16))
    assert grid.extent_xyxy == (0, 0, 64, 64)
    assert (grid.stride_x, grid.stride_y) == (4, 4)
    assert frame_of((0, 0, 64, 32), 64, "stretched").grid((16, 16)).extent_xyxy == (0, 0, 64, 32)


def test_a_window_moves_boxes_and_cells_alike() -> None:
    frame = frame_of((10, 20, 42, 52), 64, "padded")
    np.testing.assert_allclose(frame.prompts(np.array([[10.0, 20.0, 26.0, 52.0]])), [[0, 0, 32, 64]])
    assert frame.grid((8, 8)).extent_xyxy == (10, 20, 42, 52)


@pytest.mark.parametrize(
    ("box", "room", "expected"),
    [
        pytest.param((40, 40, 60, 50), 0.5, (30, 25, 70, 65), id="inside: square of twice the longer side"),
        pytest.param((0, 0, 20, 10), 0.5, (0, 0, 30, 25), id="cut at the corner"),
        pytest.param((98.5, 98.5, 100, 100), 0.0, (98, 98, 100, 100), id="at the far corner"),
    ],
)
def test_a_window_around_a_box_is_a_square_cut_to_the_image(box: tuple, room: float, expected: tuple) -> None:
    assert window_around(box, (100, 100), room) == expected


def test_a_small_window_has_its_least_side() -> None:
    assert window_around((50, 50, 52, 52), (100, 100), 0.0, least_px=20) == (41, 41, 61, 61)


def test_the_first_view_is_the_box_and_each_pair_moves_every_side_out_and_in() -> None:
    box = np.array([[100.0, 200.0, 200.0, 400.0]])
    views = views_of(box, 9, (1000, 1000))[0]
    np.testing.assert_array_equal(views[0], box[0])
    moved = views[1:] - box
    np.testing.assert_allclose(np.abs(moved), np.tile([3.0, 6.0, 3.0, 6.0], (8, 1)))
    np.testing.assert_allclose(moved[0::2] + moved[1::2], 0)
    assert len({tuple(view) for view in views.tolist()}) == 9


def test_views_stay_on_the_image() -> None:
    views = views_of(np.array([[0.0, 0.0, 50.0, 40.0]]), 9, (40, 50))
    assert views.min() >= 0
    assert (views[..., 2] <= 50).all()
    assert (views[..., 3] <= 40).all()
