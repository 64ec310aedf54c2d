"""The score that ships with the package: what it learns, what it says, and the decisions that follow."""

import numpy as np
import pytest
from scipy.optimize import minimize

from pseudolabel.errors import InputError
from pseudolabel.fusion.decisions import GOOD_IOU, TARGET_PRECISION, default_limits, limits_for
from pseudolabel.fusion.features import FEATURES, feature_matrix
from pseudolabel.fusion.score_model import Chances, default_score_model, fit_weights, sigmoid

EVIDENCE = {
    "prompted": 1,
    "consensus": 0.9,
    "contrast": 0.5,
    "edges": 0.8,
    "covered": 0.1,
    "fill": 0.7,
    "solidity": 0.9,
}
ROW = {"evidence": EVIDENCE}
CHANCES = Chances([0.2, 0.4, 0.6, 0.8], [0.5, 0.75], [[0.5, 0.8, 1.0, 1.0], [0.0, 0.3, 0.7, 0.9]])


def test_weights_minimise_the_penalised_cross_entropy() -> None:
    """SciPy's general minimiser finds the same."""
    random = np.random.default_rng(0)
    features, iou = random.normal(size=(60, 3)), random.uniform(size=60)
    towards, strength = random.normal(size=4), np.array([0.0, 1.0, 5.0, 20.0])

    def cost(weights: np.ndarray) -> float:
        share = sigmoid(features @ weights[1:] + weights[0])
        entropy = -(iou * np.log(share) + (1 - iou) * np.log(1 - share)).sum()
        return float(entropy + (strength * (weights - towards) ** 2).sum() / 2)

    expected = minimize(cost, towards, tol=1e-10).x
    np.testing.assert_allclose(fit_weights(features, iou, towards=towards, strength=strength), expected, atol=1e-4)


def test_a_strong_pull_leaves_the_weights_where_they_were() -> None:
    towards = np.array([0.3, -1.0])
    learned = fit_weights(np.ones((5, 1)), np.ones(5), towards=towards, strength=np.full(2, 1e12))
    np.testing.assert_allclose(learned, towards, atol=1e-9)


@pytest.mark.parametrize("prompted", [0, 1])
@pytest.mark.parametrize(
    ("sign", "rises"),
    [
        ("consensus", True),
        ("contrast", True),
        ("edges", True),
        ("fill", True),
        ("solidity", True),
        ("covered", False),
    ],
)
def test_the_shipped_score_goes_the_way_that_each_sign_means(sign: str, rises: bool, prompted: int) -> None:
    given = EVIDENCE | {"prompted": prompted}
    values = default_score_model().expected_iou([{"evidence": given | {sign: value}} for value in (0.2, 0.5, 0.9)])
    assert values == sorted(values, reverse=not rises)
    assert values[0] != values[-1]


def test_what_is_not_known_says_nothing() -> None:
    bare = {"evidence": None}
    signs = [FEATURES.index(name) for name in EVIDENCE]
    assert default_score_model().standard([bare])[0, signs].tolist() == [0.0] * len(signs)
    assert feature_matrix([bare, ROW]).shape == (2, len(FEATURES))


def test_where_a_source_was_asked_by_the_box_a_sign_counts_once_more_from_what_is_usual_on() -> None:
    """log(0.9 / 0.1) - 2, 0.5 - 0.4 and 0.8 - 0.7; 0 where nobody was asked, or where the sign is not known."""
    unasked, unknown = EVIDENCE | {"prompted": 0}, EVIDENCE | {"consensus": None, "contrast": None, "edges": None}
    names = ("consensus_if_prompted", "contrast_if_prompted", "edges_if_prompted")
    matrix = feature_matrix([{"evidence": one} for one in (EVIDENCE, unasked, unknown)])
    lines = matrix[:, [FEATURES.index(name) for name in names]]
    assert lines[0].tolist() == pytest.approx([np.log(9) - 2, 0.1, 0.1])
    assert lines[1:].tolist() == [[0.0] * 3] * 2


def test_a_limit_is_the_lowest_score_above_which_the_target_share_is_good() -> None:
    """From the top: 0.9, (0.9 + 0.7) / 2 = 0.8, 1.9 / 3 = 0.63."""
    assert CHANCES.score_for(0.8, 0.75) == 0.6
    assert CHANCES.score_for(0.6, 0.75) == 0.4
    assert CHANCES.score_for(0.9, 0.5) == 0.4
    assert limits_for(CHANCES, target=0.85).keep == 0.8


def test_chances_between_two_ious_are_interpolated() -> None:
    assert CHANCES.of([0.6, 0.7], 0.625).tolist() == pytest.approx([0.85, 0.9])


def test_a_target_that_nothing_reaches_is_an_error_that_says_what_is_reached() -> None:
    with pytest.raises(InputError, match=r"90% have an IoU of 0\.75"):
        CHANCES.score_for(0.99, 0.75)


def test_the_default_limits_expect_what_they_are_named_for() -> None:
    chances, limits = default_score_model().chances, default_limits()
    kept = chances.above(GOOD_IOU)[np.array(chances.scores) >= limits.keep]
    assert kept.mean() >= TARGET_PRECISION
    assert 0.2 < kept.size / len(chances.scores) < 0.8
