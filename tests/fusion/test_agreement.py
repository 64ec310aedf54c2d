"""What sources say of one object, beside each other."""

import numpy as np
import pytest

from pseudolabel.fusion.agreement import opinions


def test_opinions_are_one_per_source_and_the_one_that_fits_the_box_is_asked_for_its_spread() -> None:
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
