"""Refinement of centroids against plain bilinear steps, and clustering."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from pseudolabel.siseg.displacement import cluster_cells, disagreement, refine_centroids, refine_centroids_batch


def noisy_field(seed: int, noise: float, height: int = 48, width: int = 64) -> np.ndarray:
    """Every cell points at the nearest of four centres, plus smooth noise of that many cells."""
    random = np.random.default_rng(seed)
    centres = random.uniform((0, 0), (height, width), (4, 2))
    cells = np.moveaxis(np.mgrid[:height, :width], 0, -1)
    nearest = np.linalg.norm(cells[:, :, None] - centres, axis=-1).argmin(-1)
    smooth = ndimage.gaussian_filter(random.normal(size=(2, height, width)), (0, 3, 3))
    return (np.moveaxis(centres[nearest] - cells, -1, 0) + noise * smooth / smooth.std()).astype(np.float32)


def plain_steps(field: np.ndarray, steps: int = 300) -> np.ndarray:
    """c <- clip(c + D(c)) with the four bilinear weights, step by step."""
    height, width = field.shape[1:]
    y, x = np.mgrid[:height, :width].astype(np.float32)
    for _ in range(steps):
        y0, x0 = np.floor(y).astype(int), np.floor(x).astype(int)
        y1, x1 = np.minimum(y0 + 1, height - 1), np.minimum(x0 + 1, width - 1)
        v, u = y - y0.astype(np.float32), x - x0.astype(np.float32)
        upper = field[:, y0, x0] * (1 - v) * (1 - u) + field[:, y0, x1] * (1 - v) * u
        step = upper + field[:, y1, x0] * v * (1 - u) + field[:, y1, x1] * v * u
        y, x = np.clip(y + step[0], 0, height - 1), np.clip(x + step[1], 0, width - 1)
    return np.rint(np.stack([y, x])).astype(np.int32)


def test_perfect_field_arrives_at_its_centre_in_one_step() -> None:
    cells = np.mgrid[:20, :30].astype(np.float32)
    arrived = refine_centroids(np.array([7, 11], np.float32).reshape(2, 1, 1) - cells, steps=1)
    assert (arrived == np.array([7, 11]).reshape(2, 1, 1)).all()


@pytest.mark.parametrize("noise", [0.0, 0.25, 0.5, 1.0], ids=lambda noise: f"noise-{noise}")
def test_cells_fall_into_the_clusters_of_three_hundred_plain_steps(noise: float) -> None:
    same = []
    for seed in range(3):
        field = noisy_field(seed, noise)
        same.append(cluster_cells(field, refine_centroids(field)) == cluster_cells(field, plain_steps(field)))
    assert np.mean(same) >= 0.999


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 400))
def test_cycles_are_cut_short_without_changing_where_a_path_ends(seed: int, steps: int) -> None:
    field = noisy_field(seed, 2.0, 12, 14)  # enough noise for limit cycles
    stepwise = refine_centroids_batch(torch.from_numpy(field)[None], steps=steps)[0].numpy()
    assert np.array_equal(refine_centroids(field, steps=steps), stepwise)


def test_batch_gives_each_image_what_it_gets_alone() -> None:
    fields = torch.from_numpy(np.stack([noisy_field(seed, 0.5) for seed in range(2)]))
    together = refine_centroids_batch(fields)
    assert all(torch.equal(together[i], refine_centroids_batch(fields[i : i + 1])[0]) for i in range(2))


def test_two_basins_become_two_clusters() -> None:
    cells = np.mgrid[:20, :40].astype(np.float32)
    centres = np.where(cells[1] < 20, 9, 30).astype(np.float32)
    field = np.stack([10 - cells[0], centres - cells[1]])
    clusters = cluster_cells(field, refine_centroids(field))
    assert (clusters[:, :20] == clusters[0, 0]).all()
    assert (clusters[:, 20:] == clusters[0, 39]).all()
    assert set(np.unique(clusters)) == {1, 2}


def test_cells_that_never_settle_have_no_cluster() -> None:
    field = np.zeros((2, 9, 12), np.float32)
    field[1] = np.where(np.arange(12) % 2 == 0, 5.0, -5.0)  # jumps to and fro for ever
    assert (cluster_cells(field, refine_centroids(field)) == 0).all()


def test_weak_background_does_not_join_two_objects() -> None:
    columns = np.mgrid[:3, :21][1].astype(np.float32)
    centres = np.select([columns < 8, columns > 12], [4.0, 16.0], columns)  # no displacement between the two
    field = np.stack([np.zeros_like(columns), np.clip(centres - columns, -1, 1)])  # weak everywhere
    ground = (columns < 8) | (columns > 12)
    centroids = refine_centroids(field)
    assert len(np.unique(cluster_cells(field, centroids)[ground])) == 1
    apart = cluster_cells(field, centroids, ground=ground)
    assert set(np.unique(apart[:, :8])).isdisjoint(np.unique(apart[:, 13:]))


def test_cells_that_arrive_in_the_middle_of_their_piece_agree() -> None:
    cells = np.argwhere(np.ones((5, 5))).T
    assert disagreement(np.full((2, 25), 2, np.int32), cells) == 0


def test_disagreement_is_the_distance_to_the_middle_in_radii_of_the_area() -> None:
    cells = np.argwhere(np.ones((4, 4))).T  # middle (1.5, 1.5), area 16, radius 4 / sqrt(pi)
    arrived = np.array([[1], [5]], np.int32).repeat(16, axis=1)  # sqrt(0.5^2 + 3.5^2) = sqrt(12.5) away
    assert disagreement(arrived, cells) == pytest.approx(np.sqrt(12.5) * np.sqrt(np.pi) / 4)
