"""SIM: masks of an object's locations, corrected by what prototypes say, and what the student learns from them."""

import math
from dataclasses import replace

import pytest
import torch

from pseudolabel.condinst.fcos_losses import assign_batch, smoothed_iou
from pseudolabel.condinst.network import CondInst
from pseudolabel.config import parse_config
from pseudolabel.errors import ConfigError
from pseudolabel.teachers.condinst.config import SimConfig
from pseudolabel.teachers.condinst.copy_paste import PseudoMasks, masks_of
from pseudolabel.teachers.condinst.sim import Sim, known_mask_loss, self_corrected, unit_cells

QAM = {"ranking": "bqr", "classification": "varifocal"}
PC = {"tutor": "quality", "place": "overlapping", "pastes": 1}


def small_method(tiny, classes: int = 2, **changes) -> Sim:
    torch.manual_seed(0)
    config = SimConfig(**(tiny | changes))
    return Sim(CondInst(config, classes), config)


def sure(method: Sim) -> Sim:
    """A method whose average is sure of everything, so that there are masks to look at."""
    with torch.no_grad():
        method.teacher.head.classes.bias.fill_(2.0)
        method.teacher.head.box.bias.fill_(2.0)
        method.teacher.head.controller.bias[-1] = 3.0
    return method


def test_sim_overfits_drawn_images_from_their_boxes_alone(overfitted, tiny, drawn, seed):
    config = SimConfig(strong=False, min_tutor=0.1, **tiny)
    method, ious = overfitted(Sim, config, steps=160, seed=seed)
    assert ious.mean() > 0.75
    assert method.bank.tutors
    assert method.prototypes.known.all()
    for one, target in zip(method.pseudo_masks_of(drawn()), drawn(with_masks=True).targets, strict=True):
        assert (one.quality > 0.6).all()
        overlap = (one.masks & target.masks).sum((1, 2)) / (one.masks | target.masks).sum((1, 2))
        assert (overlap > 0.7).all()


def test_an_untrained_teacher_has_no_pseudo_mask_costs_nothing_and_moves_no_prototype(tiny, drawn):
    method = small_method(tiny, min_iou=0.9)
    losses = method.losses(drawn(), progress=0.9)
    assert (losses["pixel"], losses["paste"]) == (0, 0)
    assert not method.prototypes.known.any()


VARIANTS = [
    {},
    QAM | PC,
    {"ranking": "bpma", "copy_paste": False, "affinity_weight": 0.1},
    {"instance_share": 1.0, "alike_features": False},
    {"instance_share": 0.0, "map_temperature": 0.1, "prototypes": 1},
    {"scales": [1.5], "window_px": 64},
]


@pytest.mark.parametrize("classes", [1, 2])
@pytest.mark.parametrize("changes", VARIANTS, ids=["sim", "pc-qam", "bpma", "no-map", "map-alone", "sizes"])
def test_every_variant_trains_with_finite_losses_and_gradients(tiny, drawn, changes, classes):
    easy = {"min_iou": 0.0, "teacher_from": 0.0, "teacher_warmup": 0.0}
    changes = easy | changes
    method = sure(small_method(tiny, classes, **changes))
    for _ in range(2):  # the second time there are prototypes and tutors
        losses = method.losses(drawn(), progress=0.9)
    assert losses["pixel"] > 0
    assert bool(method.prototypes.known.any()) == (changes.get("instance_share") != 1.0)
    torch.stack(list(losses.values())).sum().backward()
    assert all(value.isfinite() for value in losses.values())
    assert all(one.grad is None or one.grad.isfinite().all() for one in method.parameters())
    for one in method.pseudo_masks_of(drawn()):
        assert ((one.soft >= 0) & (one.soft <= 1)).all()
        assert ((one.quality >= 0) & (one.quality <= 1)).all()


def test_the_masks_of_an_objects_locations_weigh_by_the_exponential_of_their_boxes_iou(tiny, drawn):
    method, batch = sure(small_method(tiny, min_iou=0.0, iou_sharpness=3.0, instance_share=1.0)), drawn(1)
    target = batch.targets[0]
    with torch.no_grad():
        features = method.teacher(batch.images)
        assigned = assign_batch(features.dense, batch.targets)
        iou, _ = smoothed_iou(features.dense.ltrb[0, assigned.location], assigned.ltrb)
        masks = method.teacher.mask_logits(features, torch.zeros_like(assigned.location), assigned.location).sigmoid()
        found = super(Sim, method).pseudo_masks(features, batch, 0)
    assert len(iou) > 4
    for number, box in enumerate(target.boxes):
        mine = (assigned.owner == number).nonzero()[:, 0].tolist()
        weights = [math.exp(3 * float(iou[one])) for one in mine]
        mean = sum(weight * masks[one].double() for weight, one in zip(weights, mine, strict=True)) / sum(weights)
        left, top, right, bottom = (int(value) // 4 for value in box)
        inside = (slice(top + 1, bottom - 1), slice(left + 1, right - 1))
        assert torch.allclose(found.soft[number][inside].double(), mean[inside], atol=1e-5)
        score = sum(weight * float(iou[one]) for weight, one in zip(weights, mine, strict=True)) / sum(weights)
        assert found.box_score[number].item() == pytest.approx(score, rel=1e-5)


def test_a_mask_is_mixed_with_the_map_of_its_class_and_not_of_another(tiny, drawn):
    method, batch = sure(small_method(tiny, min_iou=0.0, instance_share=0.0)), drawn(1)
    features = method._teacher_sees(batch)
    cells = unit_cells(features.masks)[0]
    assert torch.allclose(cells.norm(dim=0), torch.ones(24, 24), atol=1e-5)
    method.prototypes.centres.copy_(torch.stack([cells[:, 7, 7], -cells[:, 7, 7]])[:, None].expand(2, 10, -1))
    before = method.pseudo_masks(features, batch, 0)  # no class is known yet: the average's own masks
    method.prototypes.updates.fill_(1)
    semantic = method.semantic_map(features.masks)
    assert semantic.shape == (1, 2, 24, 24)
    cosine = (cells * cells[:, 7, 7][:, None, None]).sum(dim=0)
    assert torch.allclose(semantic[0, 0], cosine.sigmoid(), atol=1e-5)
    assert torch.allclose(semantic[0, 1], (-cosine).sigmoid(), atol=1e-5)
    after = method.pseudo_masks(features, batch, 0)
    assert before.masks.flatten(1).any(dim=1).all()
    inside = before.soft[1] > 0
    assert (after.soft[1][inside & (cosine > 0.5)] == 0).all()  # of the other class: surely not this one


def test_a_pseudo_mask_is_sure_above_its_own_limit_and_below_0_4():
    """Own masks above 0.7 have 2, 3 and no cells: limits of 0.75, of 0.7 for 0.6, and of 0.8."""
    mixed = torch.tensor([[0.9, 0.75, 0.72, 0.39], [0.9, 0.8, 0.6, 0.5], [0.85, 0.79, 0.6, 0.1]])[:, None]
    own = torch.tensor([[0.9, 0.8, 0.5, 0.1], [0.9, 0.8, 0.71, 0.1], [0.7, 0.6, 0.5, 0.1]])[:, None]
    inside = torch.ones(3, 1, 4, dtype=torch.bool)
    inside[2, 0, 3] = False
    found = self_corrected(mixed, own, inside)[:, 0]
    expected = [[0.5 / 0.7, 0.5, 0.32 / 0.7, 0], [0.5 / 0.6, 0.4 / 0.6, 0.2 / 0.6, 0.1 / 0.6],
                [0.45 / 0.8, 0.39 / 0.8, 0.2 / 0.8, 0]]  # fmt: skip
    assert torch.allclose(found, torch.tensor(expected), atol=1e-6)


def test_a_cell_that_nobody_knows_costs_nothing_and_one_outside_the_box_only_in_dice():
    """Box: the first three of four cells. Known: an object's cell, one of the ground, and the one outside."""
    logits = torch.tensor([[[2.0, -1.0, 5.0, -3.0]]])
    soft, cells = torch.tensor([[[0.8, 0.0, 0.4, 0.0]]]), torch.tensor([[0, 0, 3, 1]])
    p = [1 / (1 + math.exp(-value)) for value in (2.0, -1.0, -3.0)]
    entropy = -(math.log(p[0]) + math.log(1 - p[1])) / 2
    dice = 1 - 2 * p[0] / (p[0] ** 2 + p[1] ** 2 + p[2] ** 2 + 1 + 1e-5)
    assert known_mask_loss(logits, soft, cells).item() == pytest.approx(entropy + dice, rel=1e-5)
    logits[0, 0, 2] = -5.0
    assert known_mask_loss(logits, soft, cells).item() == pytest.approx(entropy + dice, rel=1e-5)


def told(quality, pasted) -> PseudoMasks:
    soft = torch.zeros(2, 24, 24)
    soft[:, 5:15, 5:15] = 1.0
    quality = torch.tensor(quality)
    return PseudoMasks(soft, quality, quality, pasted=torch.tensor(pasted))


@pytest.mark.parametrize(("changes", "weight"), [({}, 1.0), (QAM, 0.6)], ids=["sim", "qam"])
def test_masks_of_the_quality_aware_module_weigh_by_quality_and_pasted_ones_by_the_other_weight(
    tiny, drawn, changes, weight
):
    method = small_method(tiny, pixel_weight=0.5, paste_weight=2.0, **changes)
    batch = drawn(1)
    features = method.network(batch.images)
    instances = method._instances(features, batch, method._assign(features, batch))
    instances = replace(instances, logits=torch.zeros_like(instances.logits))
    found = method._pixel_losses(instances, masks_of([told([0.6, 0.6], [False, True])], instances.owner))
    each = known_mask_loss(instances.logits, told([1, 1], [False] * 2).soft[instances.owner], instances.cells)
    of_first, of_second = each[instances.owner == 0].mean(), each[instances.owner == 1].mean()
    assert found["pixel"].item() == pytest.approx(0.5 * weight * float(of_first), rel=1e-5)
    assert found["paste"].item() == pytest.approx(2.0 * weight * float(of_second), rel=1e-5)


def test_a_network_of_one_class_has_prototypes_of_one_class(tiny, drawn):
    method = sure(small_method(tiny, 1, min_iou=0.0))
    method.losses(drawn(), progress=0.9)
    assert method.prototypes.centres.shape == (1, 10, 16)
    assert method.prototypes.known.tolist() == [True]


def test_a_checkpoint_carries_the_prototypes(tiny, drawn):
    method = sure(small_method(tiny, min_iou=0.0))
    method.losses(drawn(), progress=0.9)
    torch.manual_seed(5)
    other = Sim(CondInst(method.config, 2), method.config)
    assert not torch.equal(other.prototypes.centres, method.prototypes.centres)
    other.load_state_dict(method.state_dict())
    assert torch.equal(other.prototypes.centres, method.prototypes.centres)
    assert torch.equal(other.prototypes.updates, method.prototypes.updates)
    assert not any(name.startswith("prototypes") for name in method.model_state())  # a teacher needs none


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"instance_share": 1.0, "prototypes": 5}, "prototypes does nothing without instance_share below 1"),
        ({"ranking": "bqr", "iou_sharpness": 1.0}, "without ranking positives"),
        ({"copy_paste": False, "paste_weight": 0.5}, "without copy_paste"),
        ({"fusion": "vote"}, "without ranking bqr"),
    ],
    ids=["map", "positives", "paste", "qam"],
)
def test_an_option_that_would_do_nothing_is_refused(values, message):
    with pytest.raises(ConfigError, match=message):
        parse_config(SimConfig, values, where="train-teacher")
