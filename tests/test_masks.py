import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pseudolabel.masks import Grid, SoftMask, pixel_window, resample, resample_above


@settings(deadline=None)  # the first call compiles
@given(factor=st.integers(2, 5), size=st.integers(1, 9), seed=st.integers(0, 99))
def test_resampling_to_a_finer_grid_is_torchs_bilinear_interpolation(factor: int, size: int, seed: int) -> None:
    cells = np.random.default_rng(seed).random((size, size + 2), dtype=np.float32)
    coarse = Grid(0, 0, factor, factor, size, size + 2)
    fine = Grid(0, 0, 1, 1, size * factor, (size + 2) * factor)
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(cells)[None, None], scale_factor=factor, mode="bilinear", align_corners=False
    )[0, 0]
    np.testing.assert_allclose(resample(cells, coarse, fine), expected.numpy(), atol=1e-5)


def test_a_mask_is_zero_outside_its_rectangle() -> None:
    ones = np.ones((2, 2), dtype=np.float32)
    result = resample(ones, Grid(4, 4, 2, 2, 2, 2), Grid(0, 0, 1, 1, 12, 12))
    assert result.sum() == 16
    assert result[4:8, 4:8].min() == 1


def test_resampling_onto_the_same_grid_changes_nothing() -> None:
    cells = np.random.default_rng(0).random((5, 7), dtype=np.float32)
    grid = Grid(3.5, 1.25, 3.3, 2.7, 5, 7)
    np.testing.assert_allclose(resample(cells, grid, grid), cells, atol=1e-6)


def test_a_grid_of_one_cell_is_constant() -> None:
    result = resample(np.full((1, 1), 0.25, np.float32), Grid(0, 0, 8, 8, 1, 1), Grid(0, 0, 1, 1, 8, 8))
    assert np.all(result == 0.25)


def test_the_window_of_a_box_holds_every_pixel_that_it_touches() -> None:
    window = pixel_window((1.2, 2.9, 4.0, 5.1), (10, 20))
    assert (window.x0, window.y0, window.width, window.height) == (1, 2, 3, 4)
    assert pixel_window((-5, -5, 100, 100), (10, 20)).extent_xyxy == (0, 0, 20, 10)
    assert pixel_window((3.0, 3.0, 3.0, 3.0), (10, 20)).width == 1


def test_impossible_grids_and_masks_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one cell"):
        Grid(0, 0, 1, 1, 0, 3)
    with pytest.raises(ValueError, match="positive"):
        Grid(0, 0, 0, 1, 2, 3)
    with pytest.raises(ValueError, match="expected \\(2, 3\\)"):
        SoftMask(Grid(0, 0, 1, 1, 2, 3), np.zeros((3, 2), np.uint8))


def test_the_mean_above_a_threshold_is_that_of_the_values_read() -> None:
    cells = np.array([[0.2, 0.6], [0.8, 0.4]], dtype=np.float32)
    grid = Grid(0, 0, 1, 1, 2, 2)
    read, mean = resample_above(cells, grid, grid, 0.5)
    np.testing.assert_array_equal(read, cells)
    assert mean == pytest.approx(0.7)
    assert resample_above(cells, grid, grid, 0.9)[1] == 0
