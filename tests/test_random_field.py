"""The random field's loops, against the same sums cell by cell: the same bits, not only the same labels."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pseudolabel.random_field import (
    Colours,
    Refinement,
    cluster_colours,
    contrast_weights,
    explained_share,
    mean_field,
    refine,
)

OFFSETS = [(0, 1), (1, 0), (1, 1), (1, -1), (0, 3), (3, 0), (3, 3), (3, -3)]
SIZES = st.tuples(st.integers(1, 9), st.integers(1, 9))


def _lab(size_hw: tuple[int, int], seed: int) -> np.ndarray:
    """Colours of which many are alike, so that ties are met."""
    return np.random.default_rng(seed).integers(0, 12, (*size_hw, 3)).astype(np.float32) * np.float32(7.3)


def _pairs(size_hw: tuple[int, int]) -> list[tuple[int, tuple[int, int], tuple[int, int]]]:
    """Every pair of neighbours as offset, cell and the cell at the offset, in the order in which they are counted."""
    height, width = size_hw
    cells = [(y, x) for y in range(height) for x in range(width)]
    moved = [(k, (y, x), (y + down, x + right)) for k, (down, right) in enumerate(OFFSETS) for y, x in cells]
    return [pair for pair in moved if 0 <= pair[2][0] < height and 0 <= pair[2][1] < width]


@settings(max_examples=30)
@given(SIZES, st.integers(0, 1000))
def test_a_pairs_weight_falls_with_the_difference_of_its_colours_and_with_its_length(
    size_hw: tuple[int, int], seed: int
) -> None:
    lab = _lab(size_hw, seed)
    near = [np.square(np.diff(lab.astype(float), axis=axis)).sum(-1) for axis in (1, 0)]
    scale = np.mean([d.mean() if d.size else 0.0 for d in near]) + 1e-3
    expected = np.zeros((8, size_hw[0] + 6, size_hw[1] + 6))
    for k, (y, x), there in _pairs(size_hw):
        squared = float(np.square(lab[y, x].astype(float) - lab[there]).sum())
        expected[k, y + 3, x + 3] = np.exp(-squared / (2 * scale)) / np.hypot(*OFFSETS[k])
    np.testing.assert_allclose(contrast_weights(lab, 1.0), expected, rtol=1e-4, atol=1e-30)


@settings(max_examples=30)
@given(SIZES, st.tuples(*[st.integers(0, 4)] * 4), st.integers(0, 1000))
def test_the_mean_field_has_the_bits_of_a_sum_over_all_pairs_of_the_window_one_after_the_other(
    size_hw: tuple[int, int], margins: tuple[int, int, int, int], seed: int
) -> None:
    random = np.random.default_rng(seed)
    top, left, bottom, right = margins
    window_hw = (top + size_hw[0] + bottom, left + size_hw[1] + right)
    place = slice(top, top + size_hw[0]), slice(left, left + size_hw[1])
    unary, posterior = random.normal(0, 2, size_hw).astype(np.float32), random.random(size_hw, dtype=np.float32)
    inside, weights = random.random(size_hw) < 0.8, contrast_weights(_lab(window_hw, seed), 1.0)
    vote, wide = np.full(window_hw, -1, dtype=np.float32), np.full(window_hw, -20, dtype=np.float32)
    vote[place], wide[place] = 2 * posterior - np.float32(1), unary
    everywhere = np.zeros(window_hw, dtype=bool)
    everywhere[place] = inside
    for _ in range(3):
        logit = wide.copy()
        for k, here, there in _pairs(window_hw):
            weight = weights[k, here[0] + 3, here[1] + 3]
            logit[here] += weight * vote[there]
            logit[there] += weight * vote[here]
        vote = np.where(everywhere, np.tanh(logit.astype(np.float64) / 2), -1).astype(np.float32)
    found, log_odds = mean_field(unary, weights, inside, posterior, 3, place)
    np.testing.assert_array_equal(found, (vote[place] + 1) / 2)
    np.testing.assert_array_equal(log_odds, logit[place])


def test_cells_outside_the_box_tell_its_background_and_are_nothing_else() -> None:
    """Of two colours the field takes for the object the one that is seen in the box alone, unless nobody knows it."""
    lab, inside = np.zeros((12, 16, 3), dtype=np.float32), np.zeros((12, 16), dtype=bool)
    inside[2:10, 3:13] = True
    lab[:, 8:] = 60.0
    lab[:, 13:] = 0.0  # the second colour is nowhere outside the box's columns
    lab[:2], lab[10:] = 0.0, 0.0
    colours, even, options = (
        Colours.of(lab, Refinement()),
        np.zeros((12, 16), dtype=np.float32),
        Refinement(pull_limit=0),
    )
    found = refine(even, colours, inside, np.zeros_like(inside), options)
    assert found[2:10, 9:13].min() > 0.9
    assert found[2:10, 3:7].max() < 0.5
    unknown = refine(even, colours, inside, ~inside, options)
    assert unknown[2:10, 3:7].mean() > 1.2 * found[2:10, 3:7].mean()
    assert (found[~inside] == 0).all()
    assert (refine(even, colours, np.zeros_like(inside), ~inside, options) == 0).all()


@settings(max_examples=30)
@given(SIZES, st.integers(1, 30), st.integers(0, 1000))
def test_clusters_are_those_of_k_means_from_the_cells_at_even_ranks_of_lightness(
    size_hw: tuple[int, int], clusters: int, seed: int
) -> None:
    colours = _lab(size_hw, seed).reshape(-1, 3)
    ranks = np.linspace(0, len(colours) - 1, min(clusters, len(colours))).astype(int)
    centres = colours[np.argsort(colours[:, 0], kind="stable")[ranks]]
    for _ in range(6):
        d = colours[:, None] - centres
        nearest = (d[..., 0] * d[..., 0] + d[..., 1] * d[..., 1] + d[..., 2] * d[..., 2]).argmin(axis=1)
        for k in set(nearest.tolist()):
            centres[k] = colours[nearest == k].sum(axis=0, dtype=np.float64) / (nearest == k).sum()
    np.testing.assert_array_equal(cluster_colours(colours, clusters), nearest)


@pytest.mark.parametrize(
    "lightness",
    [[3, 1, 2, 1], [0.0, -0.0, 0.0, -0.0], [-1.5, 2.5, -3.5, 0.0, 1e-42, -1e-42]],
    ids=["a tie", "zeros of both signs", "either sign and the smallest of values"],
)
def test_seeds_stand_at_the_ranks_of_a_stable_sort(lightness: list[float]) -> None:
    """With a cluster for each cell, a cell's cluster is its rank, or that of the first of its colour."""
    colours = np.zeros((len(lightness), 3), dtype=np.float32)
    colours[:, 0] = lightness
    order = np.argsort(colours[:, 0], kind="stable")
    distance = np.square(colours[:, None, 0] - colours[None, order, 0])
    np.testing.assert_array_equal(cluster_colours(colours, len(lightness)), distance.argmin(axis=1))


def test_colours_that_were_learned_once_serve_every_prior() -> None:
    lab, inside = _lab((12, 14), 1), np.zeros((12, 14), dtype=bool)
    inside[2:10, 3:12] = True
    colours, options = Colours.of(lab, Refinement()), Refinement()
    before = colours.cluster.copy(), colours.weights.copy()
    priors = [np.full((12, 14), value, dtype=np.float32) for value in (-1.0, 0.0, 1.0)]
    shared = [refine(prior, colours, inside, np.zeros_like(inside), options) for prior in priors]
    alone = [refine(prior, Colours.of(lab, options), inside, np.zeros_like(inside), options) for prior in priors]
    np.testing.assert_array_equal(shared, alone)
    np.testing.assert_array_equal(colours.cluster, before[0])
    np.testing.assert_array_equal(colours.weights, before[1])
    assert (np.array(shared)[:, ~inside] == 0).all()


@pytest.mark.parametrize(
    ("cluster", "posterior", "share"),
    [
        ([0, 0, 1, 1], [1, 1, 0, 0], 1.0),
        ([0, 1, 0, 1], [1, 1, 0, 0], 0.0),
        ([0, 0, 1, 1], [0.5, 0.5, 0.5, 0.5], 0.0),
        ([0, 0, 1, 1], [1, 1, 1, 0], 1 - (math.log(2) / 2) / (math.log(4) - 0.75 * math.log(3))),
        ([0, 0, 1, 1], [0, 0, 0, 0], 0.0),
    ],
)
def test_colours_explain_all_some_or_nothing_of_what_is_the_object(
    cluster: list[int], posterior: list[float], share: float
) -> None:
    ids, cells = np.array([cluster], dtype=np.int32), np.array([posterior], dtype=np.float32)
    assert explained_share(ids, cells) == pytest.approx(share, abs=1e-6)
