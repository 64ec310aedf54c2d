"""Evidence for a mask: hand-computed shapes, rings of two colours, boxes that cover each other."""

import numpy as np
import pytest

from pseudolabel.candidates import COLORS, Candidate, GivenBox
from pseudolabel.fusion.decisions import reasons
from pseudolabel.fusion.evidence import Evidence, color_evidence, covered_shares, shape_evidence
from pseudolabel.fusion.labels import label_objects
from pseudolabel.fusion.options import FuseOptions
from pseudolabel.fusion.scoring import tells_doubt
from pseudolabel.fusion.settings import label_settings
from pseudolabel.fusion.surroundings import Surroundings
from pseudolabel.masks import Grid, SoftMask

WINDOW = Grid(20.0, 20.0, 1.0, 1.0, 30, 30)


def picture(mask: np.ndarray) -> np.ndarray:
    """A red object of that shape in the window, on green, both with a little texture."""
    noise = np.random.default_rng(0).integers(0, 12, (70, 70, 3))
    rgb = np.array([20, 120, 20]) + noise
    rgb[20:50, 20:50][mask] = (np.array([190, 30, 30]) + noise[20:50, 20:50])[mask]
    return rgb.astype(np.uint8)


def disc(radius: float) -> np.ndarray:
    y, x = np.mgrid[:30, :30] - 14.5
    return x**2 + y**2 <= radius**2


def test_shape_of_an_l() -> None:
    """Rows 1 to 3 of 4, 2 + 2 + 5 of their spans of 2, 2 and 5 pixels; extent 3 rows of 5 columns in a box of 4 x 6."""
    mask = np.zeros((4, 6), dtype=bool)
    mask[1:3, 1:3] = True
    mask[3, 1:6] = True
    assert shape_evidence(mask) == {"fill": 9 / 24, "solidity": 1.0, "extent": 15 / 24}
    mask[3, 2:4] = False  # a gap in the last row
    assert shape_evidence(mask)["solidity"] == 7 / 9


def test_an_empty_mask_has_no_shape() -> None:
    assert shape_evidence(np.zeros((3, 3), dtype=bool)) == {"fill": 0.0, "solidity": 0.0, "extent": 0.0}


def test_the_true_mask_has_more_contrast_and_edges_than_one_that_is_off() -> None:
    seen = Surroundings.of(WINDOW, picture(disc(10)))
    true, large = (color_evidence(disc(radius), WINDOW, seen) for radius in (10, 14.9))
    assert true["contrast"] is not None
    assert large["contrast"] is not None
    assert true["contrast"] > 0.75
    assert large["contrast"] < 0.2
    assert true["edges"] is not None
    assert large["edges"] is not None
    assert true["edges"] > 0.95 > large["edges"]


def test_a_mask_without_a_contour_has_no_color_evidence() -> None:
    seen = Surroundings.of(WINDOW, picture(disc(10)))
    assert color_evidence(np.zeros((30, 30), dtype=bool), WINDOW, seen) == {"contrast": None, "edges": None}


def test_a_box_is_covered_by_the_union_of_the_others() -> None:
    """Left half by one, lower half by two that lie on each other: three quarters; the far one by nobody."""
    boxes = [(0, 0, 32, 32), (0, 0, 16, 32), (0, 16, 32, 16), (0, 16, 32, 16), (100, 100, 5, 5)]
    given = [GivenBox(i, 1, tuple(map(float, box))) for i, box in enumerate(boxes)]
    covered = covered_shares(given)
    assert covered[0] == 0.75
    assert covered[4] == 0.0
    assert covered[2] == 1.0
    assert covered_shares([]) == []


@pytest.mark.parametrize(
    ("evidence", "agreement", "said"),
    [
        (Evidence(fill=0.6, covered=0.1, extent=1.0), 0.9, []),
        (Evidence(fill=0.2, covered=0.9, extent=0.5), 0.3, ["thin", "crowded", "sources_disagree", "box_not_filled"]),
        (Evidence(), None, []),
    ],
)
def test_reasons_name_what_speaks_against_a_mask(evidence: Evidence, agreement: float | None, said: list[str]) -> None:
    assert reasons(evidence, agreement) == said


def test_zeros_and_ones_tell_no_doubt_and_neither_do_they_on_half_as_many_cells() -> None:
    """A slope of four cells does, beside a contour of six sides."""
    hard = disc(10).astype(np.float32)
    assert not tells_doubt(hard)
    assert not tells_doubt(hard.reshape(15, 2, 15, 2).mean(axis=(1, 3)))
    assert tells_doubt(np.tile(np.array([0, 0.2, 0.4, 0.6, 0.8, 1], dtype=np.float32), (6, 1)))


def rows_of(*sources: tuple[str, bool, np.ndarray]) -> dict[str, float | None]:
    """The evidence for an object of which each source has one mask: its name, whether it knows classes, and cells."""
    box = GivenBox.from_xyxy(1, 1, (20, 20, 50, 50))
    found = [
        Candidate(name, 1, 1, box.box_xyxy, 1.0, None, SoftMask(WINDOW, np.rint(cells * 255).astype(np.uint8)), knows)
        for name, knows, cells in sources
    ]
    row = label_objects([box], found, (70, 70), label_settings(FuseOptions()), rgb=picture(disc(10)))[0]
    evidence: dict[str, float | None] = row["evidence"]
    return evidence


def slope(radius: float) -> np.ndarray:
    y, x = np.mgrid[:30, :30] - 14.5
    return 1 / (1 + np.exp((np.hypot(x, y) - radius) / 2))


def test_how_sure_one_mask_of_zeros_and_ones_is_is_not_known_and_of_two_it_is_how_they_agree() -> None:
    hard, larger = disc(10).astype(np.float32), disc(13).astype(np.float32)
    assert rows_of(("sam", False, hard))["consensus"] is None
    apart, same = (rows_of(("sam", False, hard), ("other", False, one))["consensus"] for one in (larger, hard))
    assert apart is not None
    assert same is not None
    assert apart < same
    assert rows_of(("teacher", False, slope(10)))["consensus"] is not None


def test_a_source_was_asked_by_the_box_unless_it_is_a_segmenter_that_knows_the_class_or_colours() -> None:
    assert rows_of(("teacher", False, slope(10)))["prompted"] == 1
    assert rows_of(("semantic", True, slope(10)))["prompted"] == 0
    assert rows_of((COLORS, False, slope(10)))["prompted"] == 0
    assert rows_of(("semantic", True, slope(10)), ("teacher", False, slope(10)))["prompted"] == 1
