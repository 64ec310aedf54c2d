"""What sources say of one object, beside each other."""

import numpy as np
import pytest

from pseudolabel.fusion.agreement import opinions


def test_opinions_are_one_per_source_and_whose_candidates_are_pieces_is_not_asked_for_its_spread() -> None:
    """Views that toss for half of the box differ by 0.25 on average; a source of one candidate has no spread."""
    views = np.array([[1, 1, 1, 0], [1, 1, 0, 1]], dtype=np.float32)
    pieces = np.array([[1, 0, 0, 0], [0, 1, 1, 1]], dtype=np.float32)
    alone = np.array([[0, 0, 1, 1]], dtype=np.float32)
    silent = np.ones((1, 4), dtype=np.float32)
    said, spread = opinions(
        np.pad(np.concatenate([pieces, views, alone, silent])[:, None], ((0, 0), (1, 0), (2, 1)), constant_values=0.5),
        (slice(1, 2), slice(2, 6)),
        ["pieces", "pieces", "views", "views", "alone", "alone"],
        np.array([0.5, 0.6, 1, 1, 1, 1], dtype=np.float32),
        np.array([True] * 5 + [False]),
    )
    np.testing.assert_allclose(said[:, 0], [[0, 0, 1, 1], [0.5] * 4, [1, 1, 0.5, 0.5]])
    assert spread == pytest.approx(0.25)
    everything = (slice(0, 1), slice(0, 4))
    assert opinions(alone[:, None], everything, ["alone"], np.ones(1, dtype=np.float32), np.array([True]))[1] is None


@pytest.mark.parametrize(
    ("views", "spread"),
    [
        pytest.param({"calm": [1, 1], "torn": [1, 0]}, 0.0, id="of two with as many the one that is sure of itself"),
        pytest.param({"calm": [1, 1], "torn": [1, 0, 1, 0]}, 0.5, id="the one with more"),
    ],
)
def test_the_source_with_the_most_views_is_asked_how_far_it_contradicts_itself(
    views: dict[str, list[int]], spread: float
) -> None:
    sources = [name for name, values in views.items() for _ in values]
    masks = np.array([value for values in views.values() for value in values], dtype=np.float32)[:, None, None]
    everyone, fitting = np.ones(len(sources), dtype=bool), np.full(len(sources), 0.9, dtype=np.float32)
    assert opinions(masks, (slice(0, 1), slice(0, 1)), sources, fitting, everyone)[1] == pytest.approx(spread)
