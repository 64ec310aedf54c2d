"""The laws of QMF and MQS; every expected number is worked out by hand."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pseudolabel.fusion.fuse import best_single, box_quality, passing, qmf_weights, vote_share, weighted_mean
from pseudolabel.fusion.quality_aware import FusionRule, quality_aware_fusion, threshold_of
from pseudolabel.fusion.scoring import (
    Opinion,
    consensus_score,
    detection_rank,
    iou_with,
    mask_confidence_code,
    mask_confidence_paper,
    mask_quality_score,
    opinion,
    outline_iou,
    vote_score,
)

unit = st.floats(0, 1, width=32)


def batch(*candidates: list[float]) -> Tensor:
    """One object's candidates, each a row of cells."""
    return torch.tensor(candidates)[None, :, None, :]


def everywhere(width: int) -> Tensor:
    return torch.ones(1, 1, width, dtype=torch.bool)


def fuse(masks: Tensor, score: list[float], iou: list[float], rule: FusionRule):  # type: ignore[no-untyped-def]
    valid = torch.ones(1, len(score), dtype=torch.bool)
    inside = everywhere(masks.shape[-1])
    return quality_aware_fusion(masks, torch.tensor([score]), torch.tensor([iou]), valid, inside, rule)


@pytest.mark.parametrize(
    ("weights", "threshold"),
    [
        pytest.param([1.0], 0.5, id="one source"),
        pytest.param([1.0, 1.0], 0.6, id="two that weigh the same"),
        pytest.param([0.25, 1.0], 0.525, id="another of a quarter"),
        pytest.param([1.0, 1.0, 0.5], 0.6, id="never more"),
    ],
)
def test_several_sources_have_to_see_something_of_a_pixel(weights: list[float], threshold: float) -> None:
    assert threshold_of(weights) == pytest.approx(threshold)


def test_one_candidate_is_fused_to_itself() -> None:
    masks = batch([0.1, 0.7, 0.9])
    assert torch.equal(fuse(masks, [0.4], [0.3], FusionRule()).mask, masks[:, 0])


def test_candidates_of_equal_quality_are_averaged() -> None:
    fused = fuse(batch([0.2, 0.8], [0.6, 0.4]), [0.4, 0.9], [0.9, 0.4], FusionRule())
    torch.testing.assert_close(fused.mask, torch.tensor([[[0.4, 0.6]]]))


def test_weights_are_the_geometric_means_of_score_and_iou() -> None:
    fused = fuse(batch([1.0], [0.0]), [0.81, 0.64], [1.0, 0.25], FusionRule())  # e = 0.9 and 0.4
    torch.testing.assert_close(fused.weights, torch.tensor([[0.9 / 1.3, 0.4 / 1.3]]))
    assert fused.mask.item() == pytest.approx(0.9 / 1.3)


def test_a_candidate_at_the_threshold_is_removed() -> None:
    fused = fuse(batch([1.0], [0.0]), [0.1, 0.11], [1.0, 1.0], FusionRule(tau_box=0.1))
    assert fused.kept.tolist() == [[False, True]]
    assert fused.mask.item() == 0


def test_an_object_without_a_passing_candidate_has_mask_and_score_zero() -> None:
    fused = fuse(batch([1.0], [1.0]), [0.05, 0.1], [1.0, 1.0], FusionRule())
    assert fused.mask.item() == fused.quality.score.item() == fused.weights.sum().item() == 0


@given(st.lists(st.tuples(unit, unit, st.booleans()), min_size=1, max_size=12))
def test_weights_sum_to_one_or_to_zero(candidates: list[tuple[float, float, bool]]) -> None:
    score, iou, valid = (torch.tensor([column]) for column in zip(*candidates, strict=True))
    kept = passing(score, valid)
    total = qmf_weights(box_quality(score, iou), kept).sum().item()
    usable = bool(((score * iou).sqrt() * kept > 0).any())
    assert total == pytest.approx(1.0 if usable else 0.0, abs=1e-6)


def test_padding_changes_nothing() -> None:
    masks, score, iou = torch.rand(1, 3, 4, 5), torch.tensor([[0.9, 0.5, 0.3]]), torch.tensor([[0.8, 0.7, 0.9]])
    inside = torch.ones(1, 4, 5, dtype=torch.bool)
    plain = quality_aware_fusion(masks, score, iou, torch.ones(1, 3, dtype=torch.bool), inside, FusionRule())
    valid = torch.tensor([[True, True, True, False, False]])
    padded = quality_aware_fusion(
        torch.cat([masks, torch.ones(1, 2, 4, 5)], 1),
        torch.cat([score, torch.ones(1, 2)], 1),
        torch.cat([iou, torch.ones(1, 2)], 1),
        valid,
        inside,
        FusionRule(),
    )
    torch.testing.assert_close(padded.mask, plain.mask)
    torch.testing.assert_close(padded.quality.score, plain.quality.score)


def test_vote_counts_every_kept_candidate_once() -> None:
    masks = torch.tensor([[0.9, 0.9, 0.1], [0.6, 0.2, 0.1], [0.2, 0.9, 0.7]])[None, :, None, :]
    share = vote_share(masks, torch.tensor([[True, True, True]]))
    torch.testing.assert_close(share, torch.tensor([[[2 / 3, 2 / 3, 1 / 3]]]))


def test_half_of_the_votes_is_not_a_majority() -> None:
    fused = fuse(batch([0.9], [0.1]), [0.9, 0.9], [0.9, 0.9], FusionRule(fusion="vote", score="code"))
    assert fused.mask.item() == 0.5
    assert fused.quality.score.item() == 0


def test_best_single_takes_the_kept_candidate_of_highest_quality() -> None:
    weights = best_single(torch.tensor([[0.9, 0.5, 0.8]]), torch.tensor([[False, True, True]]))
    assert weights.tolist() == [[0, 0, 1]]


def test_mqs_is_the_geometric_mean_of_the_two_averages_over_what_passes() -> None:
    score, kept = torch.tensor([[0.9, 0.3, 0.05]]), torch.tensor([[True, True, False]])
    fused = torch.tensor([[[0.9, 0.7, 0.4, 0.99]]])
    inside = torch.tensor([[[True, True, True, False]]])
    quality = mask_quality_score(score, kept, fused, inside)
    assert quality.box.item() == pytest.approx(0.6)
    assert quality.pixel.item() == pytest.approx(0.8)
    assert quality.score.item() == pytest.approx(math.sqrt(0.48))


@given(st.lists(unit, min_size=1, max_size=5), st.lists(unit, min_size=1, max_size=8))
def test_mqs_lies_between_zero_and_one_and_is_zero_when_a_factor_is(scores: list[float], pixels: list[float]) -> None:
    score, fused = torch.tensor([scores]), torch.tensor([[pixels]])
    quality = mask_quality_score(score, score > 0.1, fused, everywhere(len(pixels)))
    assert 0 <= quality.score.item() <= 1
    if not (score > 0.1).any() or not (fused > 0.5).any():
        assert quality.score.item() == 0


@given(st.floats(0.2, 0.9), st.floats(0.55, 0.9), st.floats(0.01, 0.1))
def test_mqs_rises_with_either_factor(score: float, pixel: float, step: float) -> None:
    def mqs(s: float, p: float) -> float:
        kept = torch.tensor([[True]])
        return mask_quality_score(torch.tensor([[s]]), kept, torch.tensor([[[p]]]), everywhere(1)).score.item()

    assert mqs(score + step, pixel) > mqs(score, pixel)
    assert mqs(score, pixel + step) > mqs(score, pixel)


def test_boxteacher_confidence_in_its_two_forms() -> None:
    score, mask = torch.tensor([0.0625]), torch.tensor([[[0.9, 0.7, 0.2]]])
    assert mask_confidence_code(score, mask).item() == pytest.approx(math.sqrt(0.25 * 0.8), rel=1e-5)
    assert detection_rank(score, mask).item() == pytest.approx(math.sqrt(0.0625 * 0.8), rel=1e-5)
    inside = torch.tensor([[[True, False, True]]])
    assert mask_confidence_paper(score, mask, inside).item() == pytest.approx(math.sqrt(0.0625 * 0.9), rel=1e-5)


def test_released_score_by_hand() -> None:
    masks = batch([0.8, 0.6, 0.0, 0.0], [0.9, 0.0, 0.0, 0.0])
    voted = torch.tensor([[[True, True, False, False]]])
    got = vote_score(torch.tensor([[0.5, 0.2]]), torch.tensor([[True, True]]), masks, voted)
    first = math.sqrt(0.75 * 1.0 * 1.4 / 2)
    second = math.sqrt(0.6 * 0.5 * 0.9 / 2)
    assert got.item() == pytest.approx((first + second) / 2, rel=1e-6)


@settings(max_examples=50)
@given(st.integers(0, 2**31 - 1))
def test_released_score_lies_between_zero_and_one(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    masks, score = torch.rand(1, 4, 3, 3, generator=generator), torch.rand(1, 4, generator=generator)
    kept = torch.rand(1, 4, generator=generator) > 0.3
    voted = vote_share(masks, kept) > 0.5
    assert 0 <= vote_score(score, kept, masks, voted).item() <= 1


def test_iou_of_two_empty_masks_is_zero() -> None:
    nothing = torch.zeros(1, 1, 2, 2, dtype=torch.bool)
    assert iou_with(nothing, nothing[:, 0]).item() == 0


@pytest.mark.parametrize("score", ["mqs", "mcs", "mcs-paper", "code"])
@pytest.mark.parametrize("fusion", ["qmf", "vote", "best"])
def test_a_certain_unanimous_mask_scores_one_under_every_rule(fusion: str, score: str) -> None:
    rule = FusionRule(fusion=fusion, score=score)  # type: ignore[arg-type]
    fused = fuse(batch([1.0, 1.0, 0.0], [1.0, 1.0, 0.0]), [1.0, 1.0], [1.0, 1.0], rule)
    assert fused.mask.tolist() == [[[1.0, 1.0, 0.0]]]
    assert fused.quality.score.item() == pytest.approx(1.0, abs=1e-5)


def test_fusing_and_upsampling_commute() -> None:
    """Why masks may stay on the stride until the end: both are linear."""
    masks, weights = torch.rand(2, 5, 7, 6), torch.rand(2, 5)
    up = torch.nn.functional.interpolate

    def upsample(t: Tensor) -> Tensor:
        return up(t, scale_factor=4, mode="bilinear", align_corners=False)

    early = upsample(weighted_mean(masks, weights)[:, None])[:, 0]
    late = weighted_mean(upsample(masks), weights)
    torch.testing.assert_close(early, late, rtol=0, atol=1e-6)


def test_a_mask_that_is_sure_of_itself_expects_an_iou_of_one_and_an_empty_one_of_zero() -> None:
    mask = np.array([[True, False], [True, True]])
    assert opinion(mask.astype(np.float32), mask) == (1, 1)
    assert opinion(np.zeros((2, 2), np.float32), np.zeros((2, 2), bool)) == (0, 0)


def test_expected_iou_counts_what_may_be_missing() -> None:
    probability = np.array([[0.9, 0.7, 0.4, 0.0]], np.float32)
    assert opinion(probability, probability > 0.5) == pytest.approx(((0.9 + 0.7) / (2 + 0.4), (0.9 + 0.7) / 2))


def test_expected_iou_of_a_mask_that_covers_cells_in_part() -> None:
    """Half of a sure cell and all of a doubtful one: 0.5 + 0.6 of 1.5 + 0.5, and of 1.5."""
    assert opinion(np.array([1.0, 0.6]), np.array([0.5, 1.0])) == pytest.approx((1.1 / 2, 1.1 / 1.5))


@pytest.mark.parametrize(
    ("spread", "score"),
    [(0.05, (0.9 * 0.8 * 0.6 * 0.81) ** (1 / 4)), (None, (0.9 * 0.8 * 0.6) ** (1 / 3)), (0.5, 0.0)],
)
def test_a_consensus_is_the_geometric_mean_of_four_opinions(spread: float | None, score: float) -> None:
    """The sources' means are 0.4 and 0.9, of which 0.6 is the geometric mean."""
    by_source = [Opinion(0.3, 0.8), Opinion(0.5, 1.0)]
    assert consensus_score(Opinion(0.9, 0.8), by_source, spread, outline=1.0) == pytest.approx(score)
    of_four = consensus_score(Opinion(0.9, 0.8), by_source, 0.05, outline=0.5)
    assert of_four == pytest.approx((0.5 * 0.9 * 0.8 * 0.6 * 0.81) ** (1 / 4))


@pytest.mark.parametrize(
    ("pixels", "iou"),
    [
        (["...", ".#.", "..."], 0.5 / 1.5),  # one pixel, four sides
        (["#"], 0.5 / 1.5),
        (["##", "##"], 3 / 5),  # four pixels, eight sides
        ([".....", ".###.", ".#.#.", ".###."], 6 / 10),  # eight pixels, twelve sides outside and four of the hole
        (["...", "..."], 1.0),
    ],
)
def test_what_whole_pixels_leave_of_the_iou(pixels: list[str], iou: float) -> None:
    mask = np.array([[one == "#" for one in row] for row in pixels])
    assert outline_iou(mask) == pytest.approx(iou)


def test_a_rectangle_cut_to_whole_pixels_has_that_iou_on_average() -> None:
    """Its sides lie anywhere within half a pixel of the pixels'."""
    rng = np.random.default_rng(0)
    low_x, high_x, low_y, high_y = rng.uniform(-0.5, 0.5, (4, 20_000))
    inner = (30 - low_x.clip(0) + high_x.clip(max=0)) * (12 - low_y.clip(0) + high_y.clip(max=0))
    true_area = (30 - low_x + high_x) * (12 - low_y + high_y)
    ious = inner / (30 * 12 + true_area - inner)
    assert outline_iou(np.ones((12, 30), dtype=bool)) == pytest.approx(ious.mean(), abs=2e-3)
