"""The losses of BoxInst's rivals and of its second table: against loops in float64, gradients, laws, in training."""

import math

import pytest
import torch
from torch import Tensor

from pseudolabel.condinst.network import CondInst
from pseudolabel.losses.boxes import box_cells, box_windows, true_pair_loss
from pseudolabel.losses.regions import bag_loss, level_set_energy, smoothness_loss
from pseudolabel.teachers.condinst.boxinst import BoxInst
from pseudolabel.teachers.condinst.config import BoxInstConfig

H, W = 9, 12
CELLS = torch.tensor([[2, 1, 7, 6], [0, 0, 12, 9], [11, 8, 12, 9]])
SURE = 40.0


def drawn_logits(seed: int = 0) -> Tensor:
    return torch.randn(3, H, W, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 2


def probability(z: float) -> float:
    return 1 / (1 + math.exp(-z))


def looped_bags(logits: Tensor, box: list[int]) -> float:
    left, top, right, bottom = box
    held: dict[str, list[float]] = {"rows": [], "columns": []}
    free: dict[str, list[float]] = {"rows": [], "columns": []}
    for y in range(H):
        if top <= y < bottom:
            held["rows"].append(-math.log(max(probability(logits[y, x]) for x in range(left, right))))
        else:
            free["rows"].append(-math.log(1 - max(probability(logits[y, x]) for x in range(W))))
    for x in range(W):
        if left <= x < right:
            held["columns"].append(-math.log(max(probability(logits[y, x]) for y in range(top, bottom))))
        else:
            free["columns"].append(-math.log(1 - max(probability(logits[y, x]) for y in range(H))))
    groups = [*held.values(), *free.values()]
    return sum(sum(group) / len(group) for group in groups if group) / 2


def neighbours(y: int, x: int, step: int = 1) -> list[tuple[int, int]]:
    around = [(y + dy * step, x + dx * step) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if (dy, dx) != (0, 0)]
    return [(one, two) for one, two in around if 0 <= one < H and 0 <= two < W]


def box_of(box: list[int]) -> list[tuple[int, int]]:
    left, top, right, bottom = box
    return [(y, x) for y in range(top, bottom) for x in range(left, right)]


def looped_smoothness(logits: Tensor, box: list[int]) -> float:
    steps = [
        (probability(logits[y, x]) - probability(logits[other])) ** 2
        for y, x in box_of(box)
        for other in neighbours(y, x)
    ]
    return sum(steps) / len(steps)


def looped_energy(logits: Tensor, box: list[int], planes: Tensor) -> float:
    energy, cells = 0.0, box_of(box)
    for plane in planes:
        for inside in (True, False):
            share = {cell: probability(logits[cell] if inside else -logits[cell]) for cell in cells}
            mean = sum(share[cell] * float(plane[cell]) for cell in cells) / sum(share.values())
            energy += sum(share[cell] * (float(plane[cell]) - mean) ** 2 for cell in cells) / len(cells)
    return energy / len(planes)


def looped_pairs(logits: Tensor, boxes: list[list[int]], masks: Tensor) -> float:
    costs = []
    for one, box, mask in zip(logits, boxes, masks, strict=True):
        for y, x in box_of(box):
            for other in neighbours(y, x, 2):
                first, second = probability(one[y, x]), probability(one[other])
                same = first * second + (1 - first) * (1 - second)
                costs.append(-math.log(same if mask[y, x] == mask[other] else 1 - same))
    return sum(costs) / len(costs)


def test_bags_smoothness_and_energy_equal_their_loops():
    logits, planes = drawn_logits(), torch.rand(2, 3, H, W, generator=torch.Generator().manual_seed(1)).double()
    image = torch.tensor([1, 0, 1])
    for found, loop in ((bag_loss, looped_bags), (smoothness_loss, looped_smoothness)):
        expected = [loop(one, box) for one, box in zip(logits, CELLS.tolist(), strict=True)]
        assert found(logits, CELLS).tolist() == pytest.approx(expected, rel=1e-9)
    expected = [
        looped_energy(one, box, planes[place])
        for one, box, place in zip(logits, CELLS.tolist(), image.tolist(), strict=True)
    ]
    assert level_set_energy(logits, CELLS, planes, image).tolist() == pytest.approx(expected, rel=1e-6, abs=1e-12)


def test_pairs_with_true_masks_equal_their_loop():
    logits, masks = drawn_logits(), drawn_logits(5) > 0
    windows = box_windows(CELLS, torch.tensor([0, 0, 0]), (H, W))
    expected = looped_pairs(logits, CELLS.tolist(), masks)
    assert true_pair_loss(logits, windows, masks).item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("name", ["bags", "smoothness", "energy", "pairs"])
def test_gradients_are_those_of_the_values(name: str):
    planes, image = torch.rand(1, 2, H, W, dtype=torch.float64), torch.zeros(3, dtype=torch.long)
    windows = box_windows(CELLS, image, (H, W))
    of = {
        "bags": lambda z: bag_loss(z, CELLS),
        "smoothness": lambda z: smoothness_loss(z, CELLS),
        "energy": lambda z: level_set_energy(z, CELLS, planes, image),
        "pairs": lambda z: true_pair_loss(z, windows, drawn_logits(5) > 0),
    }
    assert torch.autograd.gradcheck(of[name], drawn_logits().requires_grad_())


def disc() -> Tensor:
    row, column = torch.arange(24)[:, None], torch.arange(24)[None]
    return (row - 12) ** 2 + (column - 11) ** 2 <= 36


DISC_CELLS = torch.tensor([[5, 6, 18, 19]])  # tight


def sure(mask: Tensor) -> Tensor:
    return ((mask.float() * 2 - 1) * SURE)[None]


def test_the_energy_of_two_colours_is_zero_for_the_mask_that_parts_them_and_their_variance_for_an_undecided_one():
    picture = torch.where(disc(), 3.0, 1.0)[None, None]
    image = torch.tensor([0])
    assert level_set_energy(sure(disc()), DISC_CELLS, picture, image).item() == pytest.approx(0, abs=1e-6)
    assert level_set_energy(sure(~disc()), DISC_CELLS, picture, image).item() == pytest.approx(0, abs=1e-6)
    share = float(disc()[6:19, 5:18].float().mean())
    undecided = level_set_energy(torch.zeros(1, 24, 24), DISC_CELLS, picture, image).item()
    assert undecided == pytest.approx(4 * share * (1 - share), rel=1e-5)  # variance of 1 and 3 at these shares


def test_the_energy_is_the_same_for_a_brighter_picture_and_does_not_look_outside_the_box():
    picture = torch.rand(1, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    logits, image = torch.randn(1, 24, 24, generator=torch.Generator().manual_seed(1)), torch.tensor([0])
    energy = level_set_energy(logits, DISC_CELLS, picture, image).item()
    assert level_set_energy(logits, DISC_CELLS, picture + 5, image).item() == pytest.approx(energy, rel=1e-4)
    outside = picture.clone()
    outside[..., 20:, :] = 100
    assert level_set_energy(logits, DISC_CELLS, outside, image).item() == energy


def test_bags_are_content_with_every_mask_that_reaches_all_sides_and_leaves_the_outside_alone():
    for mask in (disc(), torch.zeros(24, 24, dtype=torch.bool)):
        whole = mask.clone()
        whole[6:19, 5:18] |= ~mask.any()
        assert bag_loss(sure(whole), DISC_CELLS).item() == pytest.approx(0, abs=1e-6)
    too_far = disc()
    too_far[0, 0] = True  # one of 11 rows and one of 11 columns that miss the box
    assert bag_loss(sure(too_far), DISC_CELLS).item() == pytest.approx(SURE / 11, rel=1e-5)
    beside = disc()
    beside[12, 5:18], beside[12, 20] = False, True  # of the box's row 12 nothing is left, nor of its outermost columns
    assert bag_loss(sure(beside), DISC_CELLS).item() == pytest.approx(SURE * (3 / 13 + 1 / 11) / 2, rel=1e-5)


def test_an_even_mask_is_smooth_and_a_single_cell_is_not():
    assert smoothness_loss(torch.full((1, 24, 24), 0.3), DISC_CELLS).item() == 0
    spot = torch.zeros(24, 24, dtype=torch.bool)
    spot[12, 11] = True
    assert smoothness_loss(sure(spot), DISC_CELLS).item() == pytest.approx(16 / (13 * 13 * 8), rel=1e-5)


def test_pairs_with_true_masks_cost_nothing_where_the_mask_is_right_and_the_sign_for_a_wrong_cell():
    windows = box_windows(DISC_CELLS, torch.tensor([0]), (24, 24))
    assert true_pair_loss(sure(disc()), windows, disc()[None]).item() == pytest.approx(0, abs=1e-6)
    assert true_pair_loss(sure(~disc()), windows, disc()[None]).item() == pytest.approx(0, abs=1e-6)  # sides alone
    wrong = disc()
    wrong[12, 11] = False
    cost = 2 * SURE - math.log(2) - SURE  # -log P(same side) of SURE and -SURE: 40 - log 2
    found = true_pair_loss(sure(wrong), windows, disc()[None]).item()
    assert found == pytest.approx(16 * cost / (13 * 13 * 8), rel=1e-5)


def test_no_instance_costs_nothing():
    none, cells = torch.zeros(0, 8, 8), torch.zeros(0, 4, dtype=torch.long)
    image = torch.zeros(0, dtype=torch.long)
    values = [bag_loss(none, cells), smoothness_loss(none, cells), level_set_energy(none, cells, none[None], image)]
    assert [len(one) for one in values] == [0, 0, 0]
    assert true_pair_loss(none, box_windows(cells, image, (8, 8)), none > 0).item() == 0


KINDS = {
    "bbtp": {"box_loss": "mil", "shape_loss": "smoothness", "pairwise_weight": 0.05},
    "levelset": {"shape_loss": "levelset", "projection_weight": 3.0},
    "levelset-deep": {"shape_loss": "levelset", "deep_features": True},
    "true-pairs": {"supervision": "masks", "mask_loss": "pairwise", "bottom_px": 10},
}
NAMES = {
    "bbtp": {"mil", "smoothness"},
    "levelset": {"projection", "levelset"},
    "levelset-deep": {"projection", "levelset"},
    "true-pairs": {"mask"},
}


@pytest.mark.parametrize("kind", KINDS)
def test_twenty_steps_lower_the_losses_of_the_masks(tiny, drawn, overfitted, kind: str):
    config, batch = BoxInstConfig(**(tiny | KINDS[kind])), drawn(with_masks=kind == "true-pairs")
    torch.manual_seed(0)
    start = BoxInst(CondInst(config, 2), config)
    before = start.losses(batch, progress=1.0)
    assert set(before) - {"class", "box", "centerness"} >= NAMES[kind]
    method, _ = overfitted(BoxInst, config, steps=20, with_masks=kind == "true-pairs")
    after = method.losses(batch, progress=1.0)
    total = [sum(found[name].item() for name in NAMES[kind]) for found in (before, after)]
    assert all(value.isfinite() for value in after.values())
    assert total[1] < 0.95 * total[0]


def test_a_mask_loss_of_a_mixture_leaves_objects_without_a_mask_to_the_boxes(tiny, drawn):
    config = BoxInstConfig(**(tiny | {"supervision": "mixed", "mask_loss": "pairwise"}))
    torch.manual_seed(0)
    method = BoxInst(CondInst(config, 2), config)
    with_masks, without = (method.losses(drawn(with_masks=some), progress=1.0) for some in (True, False))
    assert with_masks["mask"] > 0
    assert without["mask"] == 0
    assert with_masks["projection"] == 0


def test_box_cells_of_the_disc_are_the_tight_box():
    rows, columns = disc().nonzero(as_tuple=True)
    box = torch.tensor([[columns.min() * 4, rows.min() * 4, columns.max() * 4 + 3, rows.max() * 4 + 3]]).float()
    assert box_cells(box, (24, 24)).tolist() == DISC_CELLS.tolist()
