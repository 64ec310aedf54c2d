import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pseudolabel.fusion.grid import box_cells, common_grid, object_window, on_grid, share_lattice
from pseudolabel.masks import Grid, SoftMask, resample, resample_above

IMAGE = (60, 80)


def soft(grid: Grid, seed: int) -> SoftMask:
    cells = np.random.default_rng(seed).integers(0, 256, (grid.height, grid.width), dtype=np.uint8)
    return SoftMask(grid, cells)


def fused_late(masks: list[SoftMask], weights: list[float], window: Grid) -> np.ndarray:
    """Every candidate upsampled on its own, then averaged: the equation as it stands."""
    total = np.zeros((window.height, window.width))
    for mask, weight in zip(masks, weights, strict=True):
        total += weight * resample(mask.probability.astype(np.float32) / 255, mask.grid, window)
    return total


def fused_early(masks: list[SoftMask], weights: list[float], window: Grid) -> np.ndarray:
    grid = common_grid([mask.grid for mask in masks], window)
    return resample_above(np.tensordot(np.float32(weights), on_grid(masks, grid), 1), grid, window, 0.5)[0]


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        pytest.param((10.0, 20.0, 14.0, 25.0), (10, 20, 4, 5), id="whole pixels"),
        pytest.param((10.4, 20.6, 14.4, 25.4), (10, 21, 4, 4), id="pixels whose centre lies inside"),
        pytest.param((10.2, 20.2, 10.3, 20.3), (10, 20, 1, 1), id="smaller than a pixel"),
        pytest.param((-5.0, -5.0, 500.0, 500.0), (0, 0, 80, 60), id="larger than the image"),
        pytest.param((79.9, 59.9, 80.0, 60.0), (79, 59, 1, 1), id="the last corner"),
    ],
)
def test_window_holds_the_pixels_whose_centres_lie_in_the_box(box, expected) -> None:  # type: ignore[no-untyped-def]
    window = object_window(box, IMAGE)
    assert (window.x0, window.y0, window.width, window.height) == expected


@settings(deadline=None)  # the first call compiles
@given(st.integers(0, 1000), st.floats(0.3, 9), st.floats(0.3, 9), st.floats(-8, 30), st.floats(-8, 30))
def test_fusing_before_upsampling_is_exact_on_a_shared_grid(
    seed: int, stride_x: float, stride_y: float, x0: float, y0: float
) -> None:
    grid = Grid(x0, y0, stride_x, stride_y, 7, 9)
    masks = [soft(grid, seed + i) for i in range(3)]
    window = object_window((12.3, 8.1, 41.7, 33.2), IMAGE)
    weights = [0.5, 0.3, 0.2]
    np.testing.assert_allclose(
        fused_early(masks, weights, window), fused_late(masks, weights, window), rtol=0, atol=1e-6
    )


def test_masks_cut_from_one_lattice_keep_their_cells() -> None:
    first, second = Grid(0.0, 0.0, 4.0, 4.0, 6, 6), Grid(8.0, 4.0, 4.0, 4.0, 6, 6)
    masks = [soft(first, 0), soft(second, 1)]
    grid = common_grid([first, second], object_window((0, 0, 80, 60), IMAGE))
    assert (grid.x0, grid.y0, grid.height, grid.width) == (0, 0, 7, 8)
    cells = np.rint(on_grid(masks, grid) * 255)
    np.testing.assert_array_equal(cells[0, :6, :6], masks[0].probability)
    np.testing.assert_array_equal(cells[1, 1:7, 2:8], masks[1].probability)
    assert cells[0].sum() == masks[0].probability.sum()


def test_grids_of_another_phase_or_stride_share_no_lattice() -> None:
    grid = Grid(0.0, 0.0, 4.0, 4.0, 6, 6)
    assert share_lattice(grid, Grid(8.0, -4.0, 4.0, 4.0, 2, 2))
    assert not share_lattice(grid, Grid(2.0, 0.0, 4.0, 4.0, 6, 6))
    assert not share_lattice(grid, Grid(0.0, 0.0, 4.0, 4.1, 6, 6))


def test_different_sources_meet_on_the_finest_stride_but_not_below_a_pixel() -> None:
    window = object_window((10, 10, 50, 40), IMAGE)
    grid = common_grid([Grid(0, 0, 16.0, 16.0, 5, 5), Grid(9.0, 9.0, 0.25, 2.0, 20, 200)], window)
    assert grid.extent_xyxy == window.extent_xyxy
    assert (grid.stride_x, grid.stride_y) == (1.0, 2.0)


def test_grid_of_a_huge_object_has_a_bounded_number_of_cells() -> None:
    window = object_window((0, 0, 8000, 6000), (6000, 8000))
    grid = common_grid([Grid(0, 0, 1.0, 1.0, 600, 800), Grid(3.0, 0, 2.0, 2.0, 600, 800)], window, max_cells=100)
    assert (grid.height, grid.width) == (100, 100)
    assert grid.extent_xyxy == pytest.approx(window.extent_xyxy)


def test_masks_beside_the_box_give_an_empty_grid_not_an_error() -> None:
    window = object_window((50, 40, 60, 50), IMAGE)
    mask = SoftMask(Grid(0, 0, 2.0, 2.0, 3, 3), np.full((3, 3), 255, np.uint8))
    assert not fused_early([mask], [1.0], window).any()


def test_box_cells_are_those_whose_centres_lie_in_the_window() -> None:
    """A centre on the window's left or upper edge lies in it, one on its right or lower edge does not."""
    grid = Grid(0, 0, 4.0, 4.0, 3, 4)  # centres at 2, 6, 10 and 14
    assert box_cells(grid, Grid(4.0, 3.0, 1.0, 1.0, 5, 8)) == (slice(1, 2), slice(1, 3))
    assert box_cells(grid, Grid(2.0, 6.0, 1.0, 1.0, 4, 12)) == (slice(1, 2), slice(0, 3))
    rows, columns = box_cells(grid, Grid(15.0, 0.0, 1.0, 1.0, 9, 5))
    assert np.ones((3, 4))[rows, columns].size == 0
