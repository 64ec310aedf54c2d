"""The walk against the dense matrix, its orientation, and its two limits."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from pseudolabel.siseg.pairs import pair_offsets, path_cells
from pseudolabel.siseg.random_walk import chebyshev_power, transition_planes, walk, walk_batch


def scene(height: int, width: int, maps: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    smooth = ndimage.gaussian_filter(random.normal(size=(height, width)), 3)
    boundary = np.where(np.abs(smooth) < 0.2 * smooth.std(), 0.9, 0.05)
    scores = ndimage.gaussian_filter(random.normal(size=(maps, height, width)), (0, 3, 3))
    return (scores > scores.std()).astype(np.float32), boundary.astype(np.float32)


def dense_affinity(boundary: np.ndarray, radius: int = 5, exponent: float = 10) -> np.ndarray:
    height, width = boundary.shape
    affinity = np.eye(height * width)
    for dy, dx in pair_offsets(radius):
        for y, x in np.ndindex(height, width):
            if 0 <= y + dy < height and 0 <= x + dx < width:
                highest = max(float(boundary[y + cy, x + cx]) for cy, cx in path_cells((dy, dx)))
                a, b = y * width + x, (y + dy) * width + x + dx
                affinity[a, b] = affinity[b, a] = (1 - highest) ** exponent
    return affinity


def dense_walk(scores: np.ndarray, boundary: np.ndarray) -> np.ndarray:
    """Row vectors times the eighth squaring of the column-normalised matrix, in float64."""
    affinity = dense_affinity(boundary)
    transition = np.linalg.matrix_power(affinity / affinity.sum(axis=0, keepdims=True), 256)
    return ((scores * (1 - boundary)).reshape(len(scores), -1) @ transition).reshape(scores.shape)


def test_walk_equals_the_dense_reference() -> None:
    scores, boundary = scene(18, 23, 3)
    assert np.abs(walk(scores, boundary) - dense_walk(scores, boundary)).max() < 1e-4


def test_batched_walk_equals_the_walk_of_each_image() -> None:
    pairs = [scene(18, 23, 3, seed) for seed in range(2)]
    together = walk_batch(
        torch.from_numpy(np.stack([s for s, _ in pairs])), torch.from_numpy(np.stack([b for _, b in pairs]))
    ).numpy()
    for index, (scores, boundary) in enumerate(pairs):
        np.testing.assert_allclose(together[index], walk(scores, boundary), atol=2e-6)


@pytest.mark.parametrize("steps", [1, 2, 7, 256, 1000], ids=lambda steps: f"steps-{steps}")
def test_chebyshev_sum_is_the_power_on_the_whole_interval(steps: int) -> None:
    t = np.cos(np.linspace(0, np.pi, 2001))
    approximation = np.polynomial.chebyshev.chebval(t, chebyshev_power(steps))
    assert np.abs(approximation - t**steps).max() <= 5e-5 + 1e-12


def test_power_256_needs_degree_64_for_half_a_ten_thousandth() -> None:
    assert len(chebyshev_power(256, tolerance=5e-5)) - 1 == 64


def test_every_cell_takes_a_weighted_average_of_its_neighbours() -> None:
    # of two cells inside walls, with unequal numbers of neighbours, a constant map stays constant; mass would pile up
    _, boundary = scene(14, 17, 1, seed=4)
    planes = transition_planes(torch.from_numpy(boundary)[None])
    torch.testing.assert_close(planes.sum(1), torch.ones((1, 14, 17)))
    constant = np.full((1, 14, 17), 0.5, np.float32) / (1 - boundary)  # the walk itself multiplies by 1 - B
    np.testing.assert_allclose(walk(constant, boundary), 0.5, atol=1e-4)


def test_single_step_is_the_hand_made_average() -> None:
    boundary = np.zeros((1, 3), np.float32)
    planes = transition_planes(torch.from_numpy(boundary)[None], radius=2)
    # the left cell knows itself and its right neighbour, the middle cell all three
    result = walk(np.array([[[1.0, 0.0, 0.0]]], np.float32), boundary, steps=1, radius=2)
    np.testing.assert_allclose(result[0, 0], [1 / 2, 1 / 3, 0], atol=1e-6)
    assert planes[0, 0, 0].tolist() == pytest.approx([1 / 2, 1 / 3, 1 / 2])


def test_without_boundary_a_connected_map_becomes_one_constant() -> None:
    scores = np.zeros((1, 10, 10), np.float32)
    scores[0, :5] = 1
    boundary = np.zeros((10, 10), np.float32)
    result = walk(scores, boundary, steps=4096)
    degree = dense_affinity(boundary).sum(0).reshape(10, 10)  # a reversible walk keeps the mean by degree
    np.testing.assert_allclose(result, (degree * scores[0]).sum() / degree.sum(), atol=1e-4)


def test_walk_does_not_cross_a_closed_contour() -> None:
    boundary = np.zeros((21, 21), np.float32)
    boundary[5:16, 5:16] = 1
    boundary[6:15, 6:15] = 0
    scores = np.zeros((1, 21, 21), np.float32)
    scores[0, 8:13, 8:13] = 1
    result = walk(scores, boundary)[0]
    outside = np.ones((21, 21), bool)
    outside[5:16, 5:16] = False
    assert np.abs(result[outside]).max() <= 5e-5
    assert result[6:15, 6:15].min() > 0.2


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000))
def test_walk_is_linear_and_keeps_scores_between_their_bounds(seed: int) -> None:
    scores, boundary = scene(12, 15, 2, seed)
    result = walk(scores, boundary)
    assert result.min() >= -5e-5
    assert result.max() <= 1 + 5e-5
    np.testing.assert_allclose(
        walk(scores[:1] * 2 + scores[1:], boundary), 2 * result[:1] + result[1:], atol=1e-5, rtol=2e-5
    )
