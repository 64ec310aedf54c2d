"""What `fuse` makes of its sources: weights, scores, decisions, calibration, unsure pixels."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pseudolabel.datasets.manifest import object_cell
from pseudolabel.fusion.calibration import fit_calibration
from pseudolabel.fusion.labels import unsure_pixels
from pseudolabel.masks import Grid, SoftMask
from pseudolabel.pipelines.run.commit import FOOTER_KEY
from pseudolabel.rle import area

from .fusing import BOX, FOOTER, SIZE_HW, Row, candidate, ellipse, fuse, image, table


def test_the_score_is_the_masks_own_expected_iou_where_boxes_are_given(tmp_path: Path) -> None:
    """Half of the box at 0.8, the rest at 0.2, odds 4 and 1/4; a threshold of 0.6 makes odds of 8/3 and 1/6 of them,
    probabilities 8/11 and 1/7: expected is 8/11 / (1 + 1/7).
    """
    grid = Grid(10.0, 20.0, 2.0, 2.0, 15, 20)
    soft = np.full((15, 20), 51, dtype=np.uint8)
    soft[:, :10] = 204
    row = fuse(tmp_path, [image(object_cell(7, 3, BOX))], table(candidate(annotation_id=7, mask=SoftMask(grid, soft))),
               score="expected", tau_pixel=0.6)[7]  # fmt: skip
    assert row["expected_iou"] == pytest.approx(
        8 / 11 / (8 / 7), abs=0.03
    )  # the step between the halves is interpolated
    assert row["score"] == pytest.approx(np.sqrt(row["pixel_quality"] * row["expected_iou"]), rel=1e-6)


def test_sources_count_the_same_however_many_candidates_they_have(tmp_path: Path) -> None:
    def flat(level: int) -> SoftMask:
        return SoftMask(ellipse(BOX).grid, np.full((30, 40), level, np.uint8))

    many = [candidate(mask=flat(90), box_score=0.8) for _ in range(4)]
    other = candidate(mask=flat(230), source="semantic", box_score=0.8)
    images = [image(object_cell(1, 3, BOX))]
    assert fuse(tmp_path / "a", images, table(*many), table(other), box_scores="raw")[1]["decision"] == "keep"
    alone = fuse(tmp_path / "b", images, table(*many), table(other), box_scores="raw", balance=False)[1]
    assert alone["decision_reason"] == "empty_mask"


def test_a_source_that_another_one_has_heard_twice_counts_half_beside_it(tmp_path: Path) -> None:
    """Certain of all against certain of nothing: 1 part in 2, and 1 in 3 where the others learned from its table."""
    grid = ellipse(BOX).grid
    full, empty = (SoftMask(grid, np.full((30, 40), level, np.uint8)) for level in (255, 0))
    images = [image(object_cell(1, 3, BOX))]
    guide = table(candidate(source="semantic", mask=full, box_score=0.9))
    teacher = table(candidate(mask=empty, box_score=0.9))
    heard = teacher.replace_schema_metadata({FOOTER_KEY: json.dumps(asdict(FOOTER)).encode()})
    limits = {"tau_pixel": 0.4, "box_scores": "raw"}
    assert fuse(tmp_path / "a", images, guide, teacher, **limits)[1]["area"] == 40 * 30
    assert fuse(tmp_path / "b", images, guide, heard, **limits)[1]["decision_reason"] == "empty_mask"
    assert fuse(tmp_path / "c", images, guide, heard, share_guides=False, **limits)[1]["area"] == 40 * 30


@pytest.mark.parametrize(
    ("hint", "seen"), [pytest.param(38, False, id="0.575 of two"), pytest.param(64, True, id="0.625 of two")]
)
def test_of_two_sources_the_other_has_to_see_a_hint_unless_it_was_heard(tmp_path: Path, hint: int, seen: bool) -> None:
    """Certain against 0.15 or 0.25; heard twice, the hint weighs half beside it, and 0.55 is enough."""
    grid = ellipse(BOX).grid
    sure, guess = (SoftMask(grid, np.full((30, 40), level, np.uint8)) for level in (255, hint))
    images = [image(object_cell(1, 3, BOX))]
    guide = table(candidate(source="semantic", mask=guess, box_score=0.9))
    teacher = table(candidate(mask=sure, box_score=0.9))
    heard = teacher.replace_schema_metadata({FOOTER_KEY: json.dumps(asdict(FOOTER)).encode()})
    assert (fuse(tmp_path / "a", images, guide, teacher)[1]["decision_reason"] != "empty_mask") is seen
    assert fuse(tmp_path / "b", images, guide, heard)[1]["decision_reason"] != "empty_mask"
    assert (
        fuse(tmp_path / "c", images, guide, heard, share_guides=False)[1]["decision_reason"] != "empty_mask"
    ) is seen


@pytest.mark.parametrize(
    ("choice", "seen"),
    [({"ranking": "bqr"}, False), ({"ranking": "bpma"}, True), ({"fusion": "best"}, True), ({"fusion": "vote"}, True)],
)
def test_only_a_mean_of_sources_needs_more_than_one_half(tmp_path: Path, choice: dict[str, str], seen: bool) -> None:
    """Both 0.55 sure: too little for a mean of two, which is read at 0.6, enough for one mask alone and for votes."""
    guess = SoftMask(ellipse(BOX).grid, np.full((30, 40), 140, np.uint8))
    two = [table(candidate(source=name, mask=guess, box_score=0.9)) for name in ("semantic", "teacher")]
    row = fuse(tmp_path, [image(object_cell(1, 3, BOX))], *two, **choice)[1]
    assert (row["decision_reason"] != "empty_mask") is seen


def test_agreement_is_the_iou_between_the_sources(tmp_path: Path) -> None:
    half = ellipse(BOX).probability.copy()
    half[:15] = 0
    lower = candidate(source="semantic", mask=SoftMask(ellipse(BOX).grid, half))
    row = fuse(tmp_path, [image(object_cell(1, 3, BOX))], table(candidate()), table(lower))[1]
    assert row["agreement"] == pytest.approx(0.5)
    assert row["sources"] == ["semantic", "teacher"]


@pytest.mark.parametrize(
    ("keep", "review", "expected"),
    [
        pytest.param(0.9, 0.5, "keep", id="good"),
        pytest.param(0.97, 0.5, "review", id="doubtful"),
        pytest.param(0.99, 0.97, "box_only", id="bad"),
    ],
)
def test_decisions_follow_the_score(tmp_path: Path, keep: float, review: float, expected: str) -> None:
    options = {"keep_score": keep, "review_score": review}
    row = fuse(tmp_path, [image(object_cell(1, 3, BOX))], table(candidate()), **options)[1]
    assert row["decision"] == expected
    assert row["area"] < 1200, "the mask stays whose IoU the score says, also where it is not worth learning"


@pytest.mark.parametrize("score", ["evidence", "consensus", "expected", "mqs", "mcs", "mcs-paper", "code"])
def test_no_score_or_decision_changes_a_mask(tmp_path: Path, score: str) -> None:
    weak = table(candidate(mask=SoftMask(ellipse(BOX).grid, (ellipse(BOX).probability * 0.7).astype(np.uint8))))
    rows = []
    for limit in (0.0, 1.0):
        folder = tmp_path / str(limit)
        folder.mkdir()
        Image.new("RGB", SIZE_HW[::-1]).save(folder / "a.png")
        options = {"score": score, "keep_score": limit, "review_score": limit}
        rows.append(fuse(folder, [image(object_cell(1, 3, BOX))], weak, **options)[1])
    assert [row["decision"] for row in rows] == ["keep", "box_only"]
    assert rows[0]["segmentation"] == rows[1]["segmentation"]
    assert rows[0]["score"] == rows[1]["score"]


def test_calibration_is_applied_and_decides(tmp_path: Path) -> None:
    source = fuse(tmp_path / "before", [image(object_cell(1, 3, BOX))], table(candidate()))[1]
    learned = [source | {"image_key": f"{i}.png"} for i in range(40)]
    calibration = fit_calibration(learned, np.linspace(0.5, 0.7, 40))
    path = tmp_path / "calibration.json"
    path.write_text(calibration.to_json())
    row = fuse(tmp_path / "after", [image(object_cell(1, 3, BOX))], table(candidate()), calibration=path)[1]
    assert row["score"] == source["score"]
    assert row["calibrated_iou"] == pytest.approx(0.6, abs=0.03)
    assert row["decision"] == "review"


def halves(tmp_path: Path, **options: Any) -> Row:
    """The row of a box of 30 x 40 px, the left half at 0.8, the rest at 0.2."""
    soft = np.full((30, 40), 51, dtype=np.uint8)
    soft[:, :20] = 204
    mask = SoftMask(Grid(10.0, 20.0, 1.0, 1.0, 30, 40), soft)
    return fuse(tmp_path, [image(object_cell(7, 3, BOX))], table(candidate(annotation_id=7, mask=mask)), **options)[7]


@pytest.mark.parametrize(
    ("band", "unsure_px"),
    [
        pytest.param(0.35, 30 * 40, id="0.8 and 0.2 are nearer to one half than 0.35"),
        pytest.param(0.25, 0, id="and farther than 0.25"),
        pytest.param(0.0, None, id="none is noted"),
    ],
)
def test_pixels_are_unsure_whose_probability_is_near_one_half(
    tmp_path: Path, band: float, unsure_px: int | None
) -> None:
    row = halves(tmp_path, unsure_band=band, tau_pixel=0.5)
    assert row["area"] == 30 * 20
    assert (None if row["unsure"] is None else area(row["unsure"])) == unsure_px


@pytest.mark.parametrize(
    ("options", "level", "expected"),
    [
        pytest.param({"score": "expected"}, 245, "keep", id="sure"),
        pytest.param({"score": "expected"}, 190, "review", id="our own score is high for nearly all masks"),
        pytest.param({"score": "expected"}, 165, "box_only", id="hardly more than nothing"),
        pytest.param({"score": "mqs"}, 190, "keep", id="the papers' scores are lower"),
        pytest.param({"score": "expected", "keep_score": 0.5}, 190, "keep", id="said otherwise"),
    ],
)
def test_limits_belong_to_the_scores_scale(tmp_path: Path, options: Row, level: int, expected: str) -> None:
    flat = SoftMask(ellipse(BOX).grid, np.full((30, 40), level, np.uint8))
    row = fuse(tmp_path, [image(object_cell(1, 3, BOX))], table(candidate(mask=flat, box_score=0.8)), **options)[1]
    assert row["decision"] == expected


def textured(folder: Path) -> Path:
    """The photograph of `image()`: a red object in the box's ellipse, on green."""
    folder.mkdir()
    rgb = np.array([20, 120, 20]) + np.random.default_rng(0).integers(0, 12, (*SIZE_HW, 3))
    inside = ellipse(BOX).probability > 127
    rgb[20:50, 10:50][inside] = (190, 30, 30)
    Image.fromarray(rgb.astype(np.uint8)).save(folder / "a.png")
    return folder


@pytest.mark.parametrize("heard", [False, True], ids=["of its own", "that heard the other"])
def test_a_table_that_says_nothing_about_an_object_changes_nothing_of_it(tmp_path: Path, heard: bool) -> None:
    far = (55.0, 0.0, 20.0, 15.0)
    images = [image(object_cell(1, 3, BOX), object_cell(2, 3, far))]
    guess = SoftMask(ellipse(BOX).grid, np.where(ellipse(BOX).probability > 127, 140, 60).astype(np.uint8))
    guide = table(candidate(source="semantic", mask=guess), candidate(source="semantic", annotation_id=2, box_xywh=far))
    other = table(candidate(annotation_id=2, box_xywh=far))
    if heard:
        other = other.replace_schema_metadata({FOOTER_KEY: json.dumps(asdict(FOOTER)).encode()})
    alone = fuse(textured(tmp_path / "a"), images, guide, score="auto")[1]
    beside = fuse(textured(tmp_path / "b"), images, guide, other, score="auto")[1]
    assert alone["sources"] == ["semantic"]
    own = set(alone) - {"provenance_id"}  # the rules may name what was heard
    assert {name: beside[name] for name in own} == {name: alone[name] for name in own}


def test_the_score_sees_that_a_mask_does_not_fit_the_picture(tmp_path: Path) -> None:
    images = [image(object_cell(1, 3, BOX))]
    lower = ellipse(BOX).probability.copy()
    lower[:12] = 0
    right, wrong = (
        fuse(textured(tmp_path / name), images, table(candidate(mask=SoftMask(ellipse(BOX).grid, mask))), score="auto")
        for name, mask in (("right", ellipse(BOX).probability), ("wrong", lower))
    )
    assert right[1]["score"] > wrong[1]["score"] + 0.1
    assert (right[1]["decision"], right[1]["reasons"]) == ("keep", [])
    assert wrong[1]["reasons"] == ["box_not_filled"]


def test_a_box_that_stands_in_for_a_mask_has_no_unsure_pixels(tmp_path: Path) -> None:
    assert fuse(tmp_path, [image(object_cell(7, 3, BOX))], table())[7]["unsure"] is None


def test_a_crumb_that_was_dropped_is_unsure() -> None:
    """Probabilities 0.9 and 0.1; the mask is the large part alone, and the pixel at 0.9 outside of it is unsure."""
    probability = np.full((6, 8), 0.1, dtype=np.float32)
    probability[1:5, 1:5] = probability[3, 7] = 0.9
    mask = np.zeros((6, 8), dtype=bool)
    mask[1:5, 1:5] = True
    assert np.argwhere(unsure_pixels(probability, mask, 0.35)).tolist() == [[3, 7]]
