"""The mask losses against a plain float64 evaluation of their formulas."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from pseudolabel.losses import boxes as losses
from pseudolabel.losses.pairwise import true_pair_loss


def plain_pair_terms(logits: torch.Tensor, size: int, dilation: int) -> torch.Tensor:
    """-log P(same side) of every cell and each of its neighbours, (n, k, h, w), in float64 by unfolding."""
    z = logits.double()[:, None]
    pad = (size // 2) * dilation
    m = F.unfold(F.pad(z, [pad] * 4, value=0.0), size, dilation=dilation)
    m = m.view(len(z), size * size, *logits.shape[1:]).sigmoid()
    middle = size * size // 2
    here = m[:, middle : middle + 1]
    there = torch.cat([m[:, middle + 1 :], m[:, :middle].flip(1)], dim=1)
    return -torch.log(here * there + (1 - here) * (1 - there))


def plain_pairwise(logits, cells, image, similarity, tau, size=3, dilation=2):
    boxes = losses.box_masks(cells, logits.shape[1:]).double()
    weight = (similarity[image] >= tau).double() * boxes[:, None]
    return (weight * plain_pair_terms(logits, size, dilation)).sum() / weight.sum().clamp(min=1)


def drawn_case(seed: int, size: int = 3, dilation: int = 2, tau: float = 0.3):
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(2, 3, 96, 128, generator=generator) * 24 + 100
    images[1, :, 40:] += 60
    lab = losses.lab_cells(images)
    valid = losses.valid_cells(torch.tensor([[96, 128], [80, 100]]), (24, 32), bottom_px=torch.tensor([10, 8]))
    logits = torch.randn(5, 24, 32, generator=generator) * 4
    boxes = torch.tensor([[0, 0, 128, 96], [12, 20, 60, 50], [100, 70, 127, 95], [3, 3, 3.5, 3.5], [40.0, 8, 99, 79]])
    image = torch.tensor([0, 1, 0, 1, 1])
    cells = losses.box_cells(boxes, (24, 32))
    similarity = losses.color_similarity(lab.double(), valid, size=size, dilation=dilation)
    edges = losses.color_edges(lab.double(), valid, tau=tau, size=size, dilation=dilation)
    return logits, cells, image, similarity, edges, valid


@pytest.mark.parametrize(("size", "dilation"), [(3, 1), (3, 2), (5, 1), (5, 2)], ids=["3x1", "3x2", "5x1", "5x2"])
def test_pairwise_loss_and_gradient_equal_the_plain_formula(size, dilation):
    logits, cells, image, similarity, edges, _ = drawn_case(0, size, dilation)
    plain_logits = logits.double().requires_grad_()
    plain = plain_pairwise(plain_logits, cells, image, similarity, 0.3, size, dilation)
    plain.backward()
    logits.requires_grad_()
    windows = losses.box_windows(cells, image, (24, 32), size=size, dilation=dilation)
    ours = losses.pairwise_loss(logits, windows, edges)
    ours.backward()
    assert plain.item() > 0.1
    assert ours.item() == pytest.approx(plain.item(), rel=1e-6)
    assert torch.allclose(logits.grad.double(), plain_logits.grad, atol=1e-8, rtol=1e-5)


@settings(max_examples=25, deadline=None)
@given(
    left=st.floats(0, 120), top=st.floats(0, 90), width=st.floats(0.1, 130), height=st.floats(0.1, 100),
    seed=st.integers(0, 5),
)  # fmt: skip
def test_pairwise_loss_of_any_box_equals_the_plain_formula(left, top, width, height, seed):
    logits, _, _, similarity, edges, _ = drawn_case(seed, tau=0.1)
    boxes = torch.tensor([[left, top, min(left + width, 128), min(top + height, 96)]])
    cells, image = losses.box_cells(boxes, (24, 32)), torch.tensor([1])
    plain_logits = logits[:1].double().requires_grad_()
    plain = plain_pairwise(plain_logits, cells, image, similarity, 0.1)
    plain.backward()
    ours_logits = logits[:1].clone().requires_grad_()
    ours = losses.pairwise_loss(ours_logits, losses.box_windows(cells, image, (24, 32)), edges)
    ours.backward()
    assert ours.item() == pytest.approx(plain.item(), rel=1e-6, abs=1e-9)
    assert torch.allclose(ours_logits.grad.double(), plain_logits.grad, atol=1e-7, rtol=1e-5)


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (40.0, 40.0, 0.0),
        (-40.0, -40.0, 0.0),
        (30.0, -30.0, 30.0 - math.log(2)),
        (0.0, 5.0, math.log(2)),
        (1.0, 2.0, -math.log(0.7310585786300049 * 0.8807970779778823 + 0.2689414213699951 * 0.1192029220221176)),
    ],
    ids=["both-in", "both-out", "opposite", "undecided", "by-hand"],
)
def test_a_pair_costs_minus_log_of_being_on_one_side(first, second, expected):
    logits = torch.tensor([[[first, 0.0, second]]])
    windows = losses.box_windows(torch.tensor([[0, 0, 1, 1]]), torch.tensor([0]), (1, 3))
    edges = torch.tensor([[[1, 0, 0]]], dtype=torch.uint8)  # bit 0: from cell 0 two to the right
    assert losses.undirected_offsets()[0] == (0, 2)
    assert losses.pairwise_loss(logits, windows, edges).item() == pytest.approx(expected, abs=1e-6)


def test_an_edge_inside_the_box_counts_twice_and_one_across_its_border_once():
    edges = torch.tensor([[[0b10001, 0b10001, 0, 0]]], dtype=torch.uint8)  # offset (0, 2), there and back
    windows = losses.box_windows(torch.tensor([[0, 0, 3, 1]]), torch.tensor([0]), (1, 4))
    weights = losses.image_edge_weights(edges, windows)
    assert weights[0][windows.place].tolist() == [2.0, 1.0, 0.0, 0.0]
    assert weights[1:].sum() == 0


def test_color_edges_are_the_similarities_at_or_above_tau():
    _, _, _, similarity, edges, _ = drawn_case(3)
    directed = torch.zeros_like(similarity, dtype=torch.bool)
    from pseudolabel.losses.color import pair_slices

    for index, offset in enumerate(losses.undirected_offsets()):
        first, second = pair_slices(offset, 24, 32)
        directed[(slice(None), index, *first)] = edges[(..., *first)] >> index & 1 == 1
        directed[(slice(None), index + 4, *second)] = edges[(..., *first)] >> index + 4 & 1 == 1
    assert 0.05 < directed.float().mean() < 0.95
    assert torch.equal(directed, similarity >= 0.3)


def test_with_features_neighbours_are_alike_by_the_product_of_both_similarities():
    """Colours 0.5 alike and features at a distance of 1: 0.5 / e = 0.184; at a distance of 0: 0.5."""
    lab = torch.zeros(1, 3, 1, 3)
    lab[0, 0, 0] = torch.tensor([0.0, 1.0, 0.0]) * 2 * math.log(2)
    features = torch.tensor([0.0, 1.0, 1.0]).view(1, 1, 1, 3)
    valid = torch.ones(1, 1, 3, dtype=torch.bool)
    for tau, expected in ((0.18, [True, True]), (0.19, [False, True]), (0.51, [False, False])):
        edges = losses.color_edges(lab, valid, tau=tau, dilation=1, features=features)
        assert [bool(one & 1) for one in edges[0, 0, :2]] == expected
        without = losses.color_edges(lab, valid, tau=tau, dilation=1)
        assert [bool(one & 1) for one in without[0, 0, :2]] == [tau < 0.5] * 2


def test_similarity_of_equal_colours_is_one_and_a_lab_distance_of_2_408_is_0_3():
    lab = torch.zeros(1, 3, 1, 3)
    lab[0, 0, 0, 2] = 2.408
    similarity = losses.color_similarity(lab, torch.ones(1, 1, 3, dtype=torch.bool), dilation=1)
    assert similarity[0, 0, 0].tolist() == pytest.approx([1.0, 0.3, 0.0], abs=1e-4)


def test_lab_of_primary_colours_is_cie_lab():
    # Lindbloom's values for sRGB red, green, blue under D65
    colours = torch.tensor([[255.0, 0, 0], [0, 255, 0], [0, 0, 255]]).T.reshape(1, 3, 1, 3)
    lab = losses.lab_cells(colours.repeat_interleave(4, 2).repeat_interleave(4, 3))
    expected = torch.tensor([[53.24, 80.09, 67.20], [87.73, -86.18, 83.18], [32.30, 79.19, -107.86]])
    assert torch.allclose(lab[0, :, 0].T, expected, atol=0.05)


def test_lab_truncates_the_average_to_whole_levels():
    one = torch.full((1, 3, 4, 4), 100.0)
    other = one.clone()
    other[:, :, 0] = 103  # average 100.75
    assert torch.equal(losses.lab_cells(one), losses.lab_cells(other))


def test_cells_are_not_valid_on_padding_and_on_the_bottom_rows():
    bottom = losses.bottom_margin(torch.tensor([32]), torch.tensor([40]))
    assert bottom.tolist() == [8]  # int(10 * 32 / 40)
    valid = losses.valid_cells(torch.tensor([[32, 16]]), (10, 6), bottom_px=bottom)
    assert valid[0].sum(dim=1).tolist() == [4, 4, 4, 4, 4, 4, 0, 0, 0, 0]  # rows whose pixel 4 r + 2 is below 24


def test_box_cells_are_every_fourth_pixel_of_the_full_box_mask():
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 100, (200, 2, 2))
    low, high = corners.min(1), corners.max(1) + 4
    boxes = torch.tensor(np.concatenate([low, np.minimum(high, 103)], 1), dtype=torch.float32)
    masks = losses.box_masks(losses.box_cells(boxes, (26, 26)), (26, 26))
    for (x1, y1, x2, y2), mask in zip(boxes.tolist(), masks, strict=True):
        full = torch.zeros(104, 104, dtype=torch.bool)
        full[int(y1) : int(y2 + 1), int(x1) : int(x2 + 1)] = True
        assert torch.equal(mask, full[2::4, 2::4])


def test_a_box_smaller_than_a_cell_takes_the_cell_it_lies_in():
    cells = losses.box_cells(torch.tensor([[4.0, 8.2, 5.1, 8.9], [99.0, 99, 99.5, 100]]), (25, 25))
    assert cells.tolist() == [[1, 2, 2, 3], [24, 24, 25, 25]]


def test_dice_of_a_mask_with_itself_is_zero_and_with_its_complement_one():
    mask = torch.zeros(1, 4, 4)
    mask[0, :2] = 1
    assert losses.dice_loss(mask, mask).item() == pytest.approx(1e-5 / (16 + 1e-5), abs=1e-6)
    assert losses.dice_loss(mask, 1 - mask).item() == 1.0


def test_projection_of_a_full_box_is_zero_and_of_a_diagonal_too():
    cells = torch.tensor([[1, 2, 5, 6]])
    box = losses.box_masks(cells, (8, 8)).float() * 80 - 40
    assert losses.projection_loss(box, cells).item() == pytest.approx(0, abs=1e-5)
    diagonal = torch.full((1, 8, 8), -40.0)
    for step in range(4):
        diagonal[0, 2 + step, 1 + step] = 40
    assert losses.projection_loss(diagonal, cells).item() == pytest.approx(0, abs=1e-5)


def test_projection_equals_the_plain_formula_with_its_gradient():
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(3, 12, 9, generator=generator).requires_grad_()
    cells = torch.tensor([[0, 0, 9, 12], [2, 3, 5, 4], [8, 11, 9, 12]])
    plain_logits = logits.detach().double().requires_grad_()
    m, b = plain_logits.sigmoid(), losses.box_masks(cells, (12, 9)).double()
    plain = 0
    for axis in (1, 2):
        x, y = m.amax(axis), b.amax(axis)
        plain = plain + 1 - 2 * (x * y).sum(1) / ((x * x).sum(1) + (y * y).sum(1) + 1e-5)
    plain.sum().backward()
    ours = losses.projection_loss(logits, cells)
    ours.sum().backward()
    assert torch.allclose(ours.double(), plain, atol=1e-6)
    assert torch.allclose(logits.grad.double(), plain_logits.grad, atol=1e-6)
    assert (logits.grad[0] != 0).sum() <= 12 + 9


def plain_affinity(logits, cells, image, masks, valid, quality):
    masks = masks.double()
    smooth = (masks + F.avg_pool2d(masks[:, None], 3, 1, 1)[:, 0]) / 2
    k = 9
    neighbours = F.unfold(F.pad(smooth[:, None], [2] * 4), 3, dilation=2).view(len(masks), k, *masks.shape[1:])
    usable = F.unfold(F.pad(valid[image][:, None].double(), [2] * 4), 3, dilation=2).view_as(neighbours)
    order = [5, 6, 7, 8, 3, 2, 1, 0]
    there, usable, here = neighbours[:, order], usable[:, order], smooth[:, None]
    agree = (here * there + (1 - here) * (1 - there)) * usable
    weight = (agree >= 0.5).double() * losses.box_masks(cells, masks.shape[1:])[:, None]
    each = (weight * plain_pair_terms(logits, 3, 2)).sum((1, 2, 3)) / weight.sum((1, 2, 3)).clamp(min=1)
    return (quality * each).sum() / (quality > 0).sum().clamp(min=1)


def test_affinity_loss_and_gradient_equal_the_plain_formula():
    logits, cells, image, _, _, valid = drawn_case(4)
    generator = torch.Generator().manual_seed(2)
    noise = torch.rand(logits.shape, generator=generator)
    masks = (F.avg_pool2d(noise[:, None], 5, 1, 2)[:, 0] > 0.5) & losses.box_masks(cells, (24, 32))
    quality = torch.tensor([0.9, 0.4, 0.0, 0.7, 1.0])
    plain_logits = logits.double().requires_grad_()
    plain = plain_affinity(plain_logits, cells, image, masks, valid, quality.double())
    plain.backward()
    logits.requires_grad_()
    ours = losses.affinity_loss(logits, losses.box_windows(cells, image, (24, 32)), masks.float(), valid, quality)
    ours.backward()
    assert ours.item() == pytest.approx(plain.item(), rel=1e-6)
    assert torch.allclose(logits.grad.double(), plain_logits.grad, atol=1e-8, rtol=1e-5)
    assert not logits.grad[2].any()


@pytest.mark.parametrize("bad", [(2, 1), (4, 2), (1, 1), (3, 0)], ids=str)
def test_neighbourhoods_that_do_not_exist_are_refused(bad):
    with pytest.raises(ValueError, match="odd size"):
        losses.undirected_offsets(*bad)


def test_a_batch_without_a_box_costs_nothing() -> None:
    """As a part of two photographs may be in which nothing lies: every loss is 0, and so is its gradient."""
    logits = torch.zeros(0, 8, 8, requires_grad=True)
    windows = losses.box_windows(torch.zeros(0, 4, dtype=torch.int64), torch.zeros(0, dtype=torch.int64), (8, 8))
    masks, valid, quality = torch.zeros(0, 8, 8), torch.ones(2, 8, 8, dtype=torch.bool), torch.zeros(0)
    edges = torch.zeros(2, 8, 8, dtype=torch.int32)
    costs = [
        losses.pairwise_loss(logits, windows, edges),
        losses.affinity_loss(logits, windows, masks, valid, quality),
        true_pair_loss(logits, windows, masks > 0),
    ]
    torch.stack(costs).sum().backward()
    assert [float(cost) for cost in costs] == [0.0, 0.0, 0.0]
    assert logits.grad is not None
