"""What the options of the fusion mean."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from pydantic import ValidationError

from pseudolabel.candidates import Candidate, GivenBox
from pseudolabel.errors import InputError
from pseudolabel.fusion.decisions import Limits
from pseudolabel.fusion.labels import LabelSettings, settled_labels
from pseudolabel.fusion.options import FuseOptions
from pseudolabel.fusion.settings import label_settings
from pseudolabel.masks import Grid, SoftMask
from pseudolabel.teachers.base import proposal


def test_the_options_defaults_are_those_of_the_library() -> None:
    assert label_settings(FuseOptions()) == LabelSettings()


def test_given_boxes_are_scored_by_the_evidence_and_found_objects_by_the_papers_score() -> None:
    assert label_settings(FuseOptions()).score_of_mask == "evidence"
    found = label_settings(FuseOptions(), has_boxes=False)
    assert (found.score_of_mask, found.fusion.rule.score) == (None, "mqs")
    assert found.limits == Limits(0.5, 0.3)


def test_a_higher_target_keeps_less_and_a_kept_score_that_is_given_holds() -> None:
    usual, strict = (label_settings(FuseOptions(**given)).limits for given in ({}, {"target_precision": 0.95}))
    assert strict.keep > usual.keep
    assert label_settings(FuseOptions(keep_score=0.7)).limits == Limits(0.7, 0.4)
    assert label_settings(FuseOptions(score="expected")).limits == Limits(0.8, 0.65)


def test_a_target_that_no_score_reaches_is_refused() -> None:
    with pytest.raises(InputError, match="target precision"):
        label_settings(FuseOptions(target_precision=0.999, at_iou=0.95))


@pytest.mark.parametrize(("rounds", "weight"), [(1, 1 / 2), (3, 1 / 4)])
def test_of_a_source_that_another_has_learned_from_less_counts(rounds: int, weight: float) -> None:
    settings = label_settings(FuseOptions(), learned_from={"semantic": rounds})
    assert settings.fusion.source_weights == (("semantic", weight),)


WINDOW, BOX = Grid(0.0, 0.0, 1.0, 1.0, 8, 8), GivenBox(1, 1, (0.0, 0.0, 8.0, 8.0))
BLACK = np.zeros((8, 8, 3), dtype=np.uint8)


def _half(source: str, *, left: bool) -> Candidate:
    """A candidate that fills one half of an 8 x 8 picture."""
    plane = np.zeros((8, 8), dtype=np.uint8)
    plane[:, :4] = 255
    mask = SoftMask(WINDOW, plane if left else plane[:, ::-1].copy())
    return replace(proposal(BOX, BOX.box_xyxy, 1.0, 1.0, mask), source=source)


@pytest.mark.parametrize(("rounds", "weight"), [(1, 1 / 2), (2, 1 / 5), (3, 1 / 10)])
def test_colours_that_a_teacher_has_learned_from_count_less_from_round_to_round(rounds: int, weight: float) -> None:
    settings = label_settings(FuseOptions(refine="none"), learned_from={"colors": rounds})
    assert settings.fusion.source_weights == (("colors", pytest.approx(weight)),)
    teacher, colours = _half("teacher", left=True), _half("colors", left=False)
    (beside,) = settled_labels([BOX], [teacher, colours], (8, 8), settings, BLACK)
    (alone,) = settled_labels([BOX], [colours], (8, 8), settings, BLACK)
    left = np.arange(8) < 4
    assert np.array_equal(beside.pixels, np.tile(left, (8, 1)))
    assert np.array_equal(alone.pixels, np.tile(~left, (8, 1)))


@pytest.mark.parametrize(("other", "threshold"), [("colors", 0.5), ("semantic", 0.6)])
def test_a_second_network_raises_the_pixel_threshold_and_colours_do_not(other: str, threshold: float) -> None:
    both = [_half("teacher", left=True), _half(other, left=True)]
    (label,) = settled_labels([BOX], both, (8, 8), label_settings(FuseOptions()), BLACK)
    assert label.fused is not None
    assert label.fused.tau_pixel == pytest.approx(threshold)


@pytest.mark.parametrize(
    ("options", "missing"),
    [
        ({"exclusive": "none", "class_margin": 0.2}, "class_margin does nothing without exclusive class"),
        ({"exclusive": "none", "upright": False}, "upright does nothing without exclusive class or all"),
        ({"fusion": "best", "balance": False}, "balance does nothing without fusion qmf"),
        ({"ranking": "bpma", "per_source": "3"}, "per_source does nothing without ranking bqr"),
        ({"keep_score": 0.7, "target_precision": 0.9}, "target_precision does nothing without keep_score left out"),
        ({"score": "mqs", "at_iou": 0.5}, "at_iou does nothing without score auto or evidence"),
    ],
    ids=lambda value: next(iter(value.values())) if isinstance(value, dict) else "",
)
def test_an_option_that_would_do_nothing_is_refused(options: dict[str, object], missing: str) -> None:
    with pytest.raises(ValidationError, match=missing):
        FuseOptions(**options)


def test_the_options_import_nothing_heavy() -> None:
    code = (
        "import sys, pseudolabel.fusion.options\n"
        "assert not {'torch', 'numpy', 'numba', 'scipy', 'pyarrow'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_fusing_loads_neither_torchvision_nor_scikit_learn() -> None:
    program = (
        "import pseudolabel.fusion.labels, pseudolabel.fusion.calibration, sys\n"
        "assert not {'torchvision', 'sklearn'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
