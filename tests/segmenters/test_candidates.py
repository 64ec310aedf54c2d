from dataclasses import replace
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pseudolabel.candidates import Candidate, GivenBox
from pseudolabel.masks import Grid, SoftMask, resample
from pseudolabel.segmenters.base import SemanticResult
from pseudolabel.segmenters.candidates import (
    CELLS_PER_SIDE,
    Contenders,
    PriorWeights,
    box_window,
    class_evidence,
    color_candidates,
    prior_logit,
    semantic_candidates,
)
from pseudolabel.segmenters.shapes import ROUND, centres


def _scene(size_hw: tuple[int, int], discs: list[tuple[float, float, float]]) -> tuple[np.ndarray, list[np.ndarray]]:
    """Red discs (x, y, radius) on a green ground with a little texture, and the discs' masks."""
    y, x = np.mgrid[: size_hw[0], : size_hw[1]] + 0.5
    rgb = np.full((*size_hw, 3), (40, 150, 60), dtype=np.float64)
    masks = [(x - cx) ** 2 + (y - cy) ** 2 < radius**2 for cx, cy, radius in discs]
    for mask in masks:
        rgb[mask] = (200, 50, 40)
    rgb += np.random.default_rng(0).normal(0, 4, rgb.shape)
    return rgb.clip(0, 255).astype(np.uint8), masks


def _maps(label: np.ndarray, confidence: int) -> SemanticResult:
    return SemanticResult(label.astype(np.uint8), np.full(label.shape, confidence, dtype=np.uint8))


def _at_pixels(candidate: Candidate, size_hw: tuple[int, int]) -> np.ndarray:
    probability = candidate.mask.probability.astype(np.float32) / 255
    return resample(probability, candidate.mask.grid, Grid(0, 0, 1, 1, *size_hw)) > 0.5


def _iou(first: np.ndarray, second: np.ndarray) -> float:
    return float((first & second).sum() / (first | second).sum())


def _box(
    xyxy: tuple[float, ...], category_id: int, class_index: int | None, *, number: int = 1, is_crowd: bool = False
) -> GivenBox:
    given = GivenBox.from_xyxy(number, category_id, xyxy)
    return replace(given, class_index=class_index, is_crowd=is_crowd)


def _only(candidates: list[Candidate]) -> Candidate:
    (candidate,) = candidates
    return candidate


def test_evidence_is_the_confidence_where_the_class_won_and_what_it_leaves_elsewhere() -> None:
    label = np.array([[1, 1, 0, 0, 255]], dtype=np.uint8)
    confidence = np.array([[255, 153, 204, 102, 0]], dtype=np.uint8)
    evidence = class_evidence(SemanticResult(label, confidence), 1, Grid(0, 0, 1, 1, 1, 5))
    np.testing.assert_allclose(evidence, [[1.0, 0.6, 0.2, 0.4, 0.5]], atol=0.003)


def test_evidence_is_averaged_over_a_cell() -> None:
    label = np.repeat([[1, 1, 1, 0]], 4, axis=0)
    evidence = class_evidence(_maps(label, 255), 1, Grid(0, 0, 4, 4, 1, 1))
    assert evidence[0, 0] == pytest.approx(0.75, abs=0.003)


def test_a_region_candidate_is_the_class_in_the_box() -> None:
    label = np.zeros((20, 30), dtype=np.uint8)
    label[5:15, 10:30] = 1
    box = _box((8, 3, 20, 17), 7, 1)
    candidate = _only(semantic_candidates([box], _maps(label, 255), None, masks="region"))
    assert candidate.mask.grid == Grid(8, 3, 1, 1, 14, 12)
    assert (candidate.mask.probability[2:12, 2:] == 255).all()
    assert candidate.mask.probability.astype(int).sum() == 255 * 100
    assert candidate.box_xyxy == (10, 5, 20, 15)
    assert candidate.box_iou == pytest.approx(100 / 168)
    assert candidate.box_score == pytest.approx(1.0)


def test_refinement_finds_the_edge_of_a_coarse_region() -> None:
    rgb, (disc,) = _scene((120, 160), [(80, 60, 40)])
    blocks = np.kron(disc[::16, ::16], np.ones((16, 16)))[:120, :160]
    box = _box((40, 20, 120, 100), 7, 1)
    maps = _maps(blocks, 200)
    refined = _at_pixels(_only(semantic_candidates([box], maps, rgb)), (120, 160))
    region = _at_pixels(_only(semantic_candidates([box], maps, None, masks="region")), (120, 160))
    assert _iou(region, disc) < 0.9
    assert _iou(refined, disc) > 0.95


def test_the_box_alone_finds_a_clear_object_but_with_a_low_score() -> None:
    rgb, (disc,) = _scene((120, 160), [(80, 60, 40)])
    box = _box((40, 20, 120, 100), 7, 1)
    unseen = _only(semantic_candidates([box], _maps(np.zeros((120, 160)), 200), rgb))
    seen = _only(semantic_candidates([box], _maps(disc, 200), rgb))
    assert _iou(_at_pixels(unseen, (120, 160)), disc) > 0.9
    assert unseen.box_score < 0.4 < seen.box_score


def test_an_object_that_the_segmenter_has_missed_is_left_to_its_colours() -> None:
    rgb, _ = _scene((120, 160), [(80, 60, 40)])
    box, maps = _box((40, 20, 120, 100), 7, 1), _maps(np.zeros((120, 160)), 255)
    missed = _only(semantic_candidates([box], maps, rgb))
    alone = _only(color_candidates([box], rgb))
    np.testing.assert_array_equal(missed.mask.probability, alone.mask.probability)
    assert 0.1 < missed.box_score < 0.5
    assert (missed.knows_class, alone.knows_class) == (False, False)
    believed = _only(semantic_candidates([box], maps, rgb, unknown="none"))
    assert believed.knows_class
    assert believed.box_score < 0.1


@settings(max_examples=50)
@given(
    st.lists(
        st.tuples(*[st.integers(0, 80)] * 2, *[st.integers(1, 40)] * 2, st.integers(7, 8), st.booleans()),
        min_size=1,
        max_size=12,
    )
)
def test_the_rivals_left_away_would_have_changed_no_bit(rows: list[tuple[int, int, int, int, int, bool]]) -> None:
    boxes = [
        _box((x / 2, y / 2, (x + w) / 2, (y + h) / 2), kind, kind, number=number, is_crowd=crowd)
        for number, (x, y, w, h, kind, crowd) in enumerate(rows)
    ]
    contenders = Contenders.among(boxes)
    for index, box in enumerate(boxes):
        grid = box_window(box.box_xyxy, (60, 60)).grid
        evidence = np.full((grid.height, grid.width), 0.7, dtype=np.float32)
        others = [other for other in boxes if other is not box and not other.is_crowd]
        near = contenders.rivals(index, grid)
        assert set(map(id, near)) <= set(map(id, others))
        np.testing.assert_array_equal(
            prior_logit(grid, box, near, evidence, PriorWeights()),
            prior_logit(grid, box, others, evidence, PriorWeights()),
        )


@given(st.lists(st.tuples(*[st.integers(0, 60)] * 2, *[st.integers(1, 40)] * 2, st.integers(7, 8)), min_size=1))
def test_a_rival_changes_the_cells_of_its_box_by_the_formula_and_no_others(rows: list[tuple[int, ...]]) -> None:
    grid, box, weights = Grid(3, 5, 1.3, 0.9, 31, 37), _box((10, 9, 41, 30), 7, 7), PriorWeights()
    rivals = [_box((x / 2, y / 2, (x + w) / 2, (y + h) / 2), kind, kind) for x, y, w, h, kind in rows]
    evidence = np.full((31, 37), 0.5, dtype=np.float32)
    expected = np.full((31, 37), weights.bias)
    own = ROUND.squared_radius(grid, box.box_xyxy)
    expected += weights.ellipse * np.clip(0.6 - own, -1.5, 0.6)
    x, y = centres(grid)
    for rival in rivals:
        left, top, right, bottom = rival.box_xyxy
        claim = (x > left) & (x < right) & (y > top) & (y < bottom)
        radius = np.sqrt(ROUND.squared_radius(grid, rival.box_xyxy))
        if rival.category_id == 7:
            expected -= claim * weights.rival * np.clip(2 * (np.sqrt(own) - radius), -0.3, 2)
        elif (right - left) * (bottom - top) < 0.6 * 31 * 21:
            expected -= claim * weights.front * np.clip(1 - radius, 0, 1)
    np.testing.assert_allclose(prior_logit(grid, box, rivals, evidence, weights), expected, rtol=1e-5, atol=1e-5)


def test_a_box_that_reaches_a_window_is_a_rival_and_one_beyond_it_is_not() -> None:
    grid = Grid(10, 10, 1, 1, 20, 20)  # centres from 10.5 to 29.5
    reaching = [_box((0, 0, 11, 11), 7, 1), _box((29, 29, 40, 40), 7, 1), _box((0, 15, 50, 16), 7, 1)]
    beyond = [_box((0, 0, 10.5, 40), 7, 1), _box((0, 29.5, 40, 40), 7, 1)]
    crowd = [_box((12, 12, 20, 20), 7, 1, is_crowd=True)]
    boxes = [_box((12, 12, 28, 28), 7, 1), *reaching, *beyond, *crowd]
    assert Contenders.among(boxes).rivals(0, grid) == reaching


def test_a_rival_of_the_same_class_lowers_the_odds_on_its_own_side_of_what_both_boxes_cover() -> None:
    grid = Grid(0, 0, 1, 1, 10, 30)
    box, rival = _box((0, 0, 20, 10), 7, 1), _box((10, 0, 30, 10), 7, 1)
    evidence = np.full((10, 30), 0.9, dtype=np.float32)
    change = prior_logit(grid, box, [rival], evidence, PriorWeights()) - prior_logit(
        grid, box, [], evidence, PriorWeights()
    )
    assert (change[:, :10] == 0).all()  # outside the rival
    assert (change[:, 16:20] < -0.5).all()  # nearer to the rival's centre
    assert (change[:, 10:14] > 0).all()  # nearer to its own
    assert change.max() <= 0.3 * PriorWeights().rival + 1e-6


def test_only_a_much_smaller_box_of_another_class_lies_in_front() -> None:
    grid = Grid(0, 0, 1, 1, 20, 20)
    box, evidence = _box((0, 0, 20, 20), 7, 1), np.full((20, 20), 0.9, dtype=np.float32)
    alone = prior_logit(grid, box, [], evidence, PriorWeights())
    small = prior_logit(grid, box, [_box((5, 5, 15, 15), 8, 2)], evidence, PriorWeights())
    large = prior_logit(grid, box, [_box((0, 0, 20, 19), 8, 2)], evidence, PriorWeights())
    assert small[10, 10] < alone[10, 10] - 1
    assert small[2, 2] == alone[2, 2]
    np.testing.assert_array_equal(large, alone)


def test_a_crowd_claims_nothing() -> None:
    rgb, (disc,) = _scene((100, 100), [(50, 50, 30)])
    box, maps = _box((20, 20, 80, 80), 7, 1), _maps(disc, 230)
    alone = _only(semantic_candidates([box], maps, rgb))
    crowd = _box((0, 0, 100, 100), 7, None, number=2, is_crowd=True)
    beside = _only(semantic_candidates([box, crowd], maps, rgb))
    assert beside.annotation_id == box.annotation_id
    np.testing.assert_array_equal(beside.mask.probability, alone.mask.probability)


def test_a_class_that_the_segmenter_does_not_know_gets_a_mask_from_its_colours() -> None:
    """The label map says `other class, certain` everywhere: nobody asks it."""
    rgb, (disc,) = _scene((60, 60), [(30, 30, 18)])
    box = _box((12, 12, 48, 48), 7, None)
    found = _at_pixels(_only(semantic_candidates([box], _maps(np.full(disc.shape, 2), 255), rgb)), disc.shape)
    assert (found & disc).sum() / (found | disc).sum() > 0.95


@pytest.mark.parametrize("options", [{"unknown": "none"}, {"masks": "region"}])
def test_or_none_where_none_is_wanted_or_the_bare_region_is(options: dict[str, Any]) -> None:
    rgb, (disc,) = _scene((50, 50), [(25, 25, 15)])
    assert semantic_candidates([_box((5, 5, 45, 45), 7, None)], _maps(disc, 200), rgb, **options) == []


def test_closer_looks_are_believed_instead_of_the_label_map_one_candidate_each() -> None:
    _, (disc,) = _scene((60, 60), [(30, 30, 18)])
    box = _box((12, 12, 48, 48), 7, 1)
    window = box_window(box.box_xyxy, disc.shape)
    inside = np.zeros((window.grid.height, window.grid.width), dtype=np.uint8)
    inside[window.rows, window.columns][:, :18] = 255
    looks = [SoftMask(window.grid, look) for look in (inside, np.full_like(inside, 255))]
    half, full = semantic_candidates([box], _maps(disc, 255), None, masks="region", closer={1: looks})
    np.testing.assert_array_equal(_at_pixels(half, disc.shape)[12:48, 12:48].any(axis=0), [True] * 18 + [False] * 18)
    assert _at_pixels(full, disc.shape)[12:48, 12:48].all()


@settings(max_examples=30, deadline=None)
@given(
    x=st.floats(-5, 190), y=st.floats(-5, 110), width=st.floats(0.3, 260), height=st.floats(0.3, 200),
    masks=st.sampled_from(["refined", "region"]),
)  # fmt: skip
def test_a_mask_covers_its_box_and_stays_small(
    x: float, y: float, width: float, height: float, masks: Literal["refined", "region"]
) -> None:
    rgb, (disc,) = _scene((120, 200), [(100, 60, 50)])
    box = _box((x, y, x + width, y + height), 7, 1)
    for candidate in semantic_candidates([box], _maps(disc, 230), rgb, masks=masks):
        grid = candidate.mask.grid
        assert max(grid.height, grid.width) <= CELLS_PER_SIDE
        left, top, right, bottom = grid.extent_xyxy
        assert left >= -1e-6
        assert top >= -1e-6
        assert right <= 200 + 1e-6
        assert bottom <= 120 + 1e-6
        assert 0 <= (candidate.box_iou or 0) <= 1
        assert 0 <= candidate.box_score <= 1
