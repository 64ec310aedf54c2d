import numpy as np
import pytest

from pseudolabel.fusion.refine import Refinement, refine, shifted_to, tight_threshold
from pseudolabel.fusion.surroundings import Surroundings
from pseudolabel.masks import Grid

WINDOW = Grid(20.0, 10.0, 1.0, 1.0, 30, 40)


def hill(width: int, height: int, *, top: float) -> np.ndarray:
    """A cone whose probability falls linearly from its centre to 0 at the middle of the sides."""
    rows = (np.arange(height) + 0.5) / height * 2 - 1
    columns = (np.arange(width) + 0.5) / width * 2 - 1
    distance = np.sqrt(rows[:, None] ** 2 + columns[None, :] ** 2)
    return np.clip(top * (1 - distance), 0, 1).astype(np.float32)


def test_none_leaves_the_mask_alone() -> None:
    probability = hill(40, 30, top=1.0)
    assert refine(probability, WINDOW, Refinement("none")) is probability


def test_tight_lowers_the_threshold_of_a_mask_that_misses_its_sides() -> None:
    refinement = Refinement("tight")
    probability = hill(40, 30, top=1.0)
    assert tight_threshold(probability, refinement) == 0.2
    refined = refine(probability, WINDOW, refinement)
    np.testing.assert_array_equal(refined > 0.5, probability > 0.2)


def test_tight_leaves_a_mask_alone_that_touches_every_side() -> None:
    probability = np.full((30, 40), 0.9, dtype=np.float32)
    assert tight_threshold(probability, Refinement("tight")) == 0.5


def test_tight_finds_a_mask_where_none_is_above_one_half() -> None:
    refined = refine(np.full((30, 40), 0.45, dtype=np.float32), WINDOW, Refinement("tight"))
    assert (refined > 0.5).all()


@pytest.mark.parametrize("threshold", [0.2, 0.4, 0.6])
def test_shifting_keeps_the_order_and_the_ends(threshold: float) -> None:
    probability = np.linspace(0, 1, 101, dtype=np.float32)[None]
    shifted = shifted_to(probability, threshold)
    assert (np.diff(shifted) >= 0).all()
    assert shifted[0, [0, -1]].tolist() == [0, 1]
    np.testing.assert_array_equal(shifted > 0.5, probability > np.float32(threshold))


@pytest.mark.parametrize(("trust", "least_iou"), [(1.0, 0.9), (Refinement().trust, 0.89)])
def test_color_pulls_a_blurred_mask_to_the_edge_of_its_object(trust: float, least_iou: float) -> None:
    """The more the mask is trusted, the less the colours move it."""
    image = np.full((60, 80, 3), (30, 120, 40), dtype=np.uint8)
    image[10:40, 20:60] = (35, 110, 45)
    truth = np.zeros((30, 40), dtype=bool)
    truth[:, 8:32] = True
    truth[12:18] = True  # a cross that touches every side
    image[10:40, 20:60][truth] = (200, 40, 30)
    blurred = hill(40, 30, top=1.0)

    def iou(mask: np.ndarray) -> float:
        return float((mask & truth).sum() / (mask | truth).sum())

    refined = refine(blurred, WINDOW, Refinement("color", trust=trust), Surroundings.of(WINDOW, image))
    assert iou(blurred > 0.5) < 0.5
    assert iou(refined > 0.5) > least_iou


def test_color_without_an_image_is_an_error() -> None:
    with pytest.raises(ValueError, match="image"):
        refine(hill(40, 30, top=1.0), WINDOW, Refinement("color"))
