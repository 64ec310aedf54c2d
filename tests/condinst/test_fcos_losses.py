"""The detector's losses by hand, and against torchvision."""

import math

import pytest
import torch
from torchvision.ops import generalized_box_iou_loss

from pseudolabel.condinst.batch import Targets
from pseudolabel.condinst.fcos import Dense, Locations
from pseudolabel.condinst.fcos_losses import (
    assign_batch,
    centerness_target,
    detection_losses,
    smoothed_iou,
    varifocal_loss,
)


def test_smoothed_iou_by_hand():
    predicted, true = torch.tensor([[1.0, 1, 1, 1]]), torch.tensor([[1.0, 1, 3, 1]])
    iou, giou = smoothed_iou(predicted, true)
    assert iou.item() == pytest.approx((4 + 1) / (8 + 1))
    assert giou.item() == pytest.approx((4 + 1) / (8 + 1))  # the hull is the larger box itself
    shifted = smoothed_iou(torch.tensor([[2.0, 0, 0, 2]]), torch.tensor([[0.0, 2, 2, 0]]))
    # boxes (-2..0, 0..2) and (0..2, -2..0): nothing shared, union 8, hull 16
    assert shifted[1].item() == pytest.approx(1 / 9 - 8 / 16)


def test_giou_of_large_boxes_is_torchvisions():
    generator = torch.Generator().manual_seed(0)
    one, other = torch.rand(20, 4, generator=generator) * 1e4 + 1e3, torch.rand(20, 4, generator=generator) * 1e4 + 1e3
    ours = 1 - smoothed_iou(one, other)[1]
    corners = [torch.cat([-x[:, :2], x[:, 2:]], dim=1) for x in (one, other)]
    assert torch.allclose(ours, generalized_box_iou_loss(*corners), atol=1e-4)


def test_centerness_is_one_in_the_middle_and_by_hand_elsewhere():
    target = centerness_target(torch.tensor([[2.0, 3, 2, 3], [1, 2, 4, 8]]))
    assert target.tolist() == pytest.approx([1.0, math.sqrt(1 / 4 * 2 / 8)])


def test_varifocal_is_zero_where_prediction_and_target_are_sure():
    logits = torch.tensor([[40.0, -40.0]])
    assert varifocal_loss(logits, torch.tensor([[1.0, 0.0]])).item() == pytest.approx(0, abs=1e-6)


def test_varifocal_by_hand():
    p, q = 0.6, 0.8
    logits = torch.tensor([[math.log(p / (1 - p)), math.log(p / (1 - p))]])
    expected = -q * (q * math.log(p) + (1 - q) * math.log(1 - p)) - 0.75 * p**2 * math.log(1 - p)
    assert varifocal_loss(logits, torch.tensor([[q, 0.0]])).item() == pytest.approx(expected, rel=1e-5)


def test_varifocal_alpha_scales_negatives_alone():
    logits = torch.tensor([[0.3, -0.4]])
    positive, negative = torch.tensor([[0.5, 0.9]]), torch.zeros(1, 2)
    assert varifocal_loss(logits, positive, alpha=0.25) == varifocal_loss(logits, positive, alpha=0.75)
    assert 3 * varifocal_loss(logits, negative, alpha=0.25) == pytest.approx(
        varifocal_loss(logits, negative, alpha=0.75).item()
    )


def dense_for(truth: torch.Tensor, classes: int, batch: int = 1) -> Dense:
    locations = Locations.of(((8, 8), (4, 4), (2, 2), (1, 1), (1, 1)), torch.device("cpu"))
    count = len(locations.xy)
    ltrb = torch.ones(batch, count, 4)
    logits, centerness = torch.full((batch, count, classes), -30.0), torch.zeros(batch, count)
    dense = Dense(logits, ltrb, centerness, (), locations)
    assigned = assign_batch(dense, (Targets(truth, torch.zeros(len(truth), dtype=torch.int64)),) * batch)
    ltrb[assigned.image, assigned.location] = assigned.ltrb
    logits[assigned.image, assigned.location, assigned.label] = 30.0
    centerness[assigned.image, assigned.location] = torch.special.logit(centerness_target(assigned.ltrb), eps=1e-6)
    return dense


@pytest.mark.parametrize("classes", [1, 3])
@pytest.mark.parametrize("varifocal", [False, True], ids=["focal", "varifocal"])
def test_a_perfect_detector_has_no_class_and_box_loss(classes, varifocal):
    truth = torch.tensor([[3.0, 5, 30, 40], [20, 20, 60, 60]])
    dense = dense_for(truth, classes, batch=2)
    targets = (Targets(truth, torch.zeros(2, dtype=torch.int64)),) * 2
    assigned = assign_batch(dense, targets)
    assert set(assigned.owner.tolist()) == {0, 1, 2, 3}
    found = detection_losses(dense, assigned, varifocal=varifocal)
    assert found["class"].item() == pytest.approx(0, abs=1e-5)
    assert found["box"].item() == pytest.approx(0, abs=1e-5)
    target = centerness_target(assigned.ltrb).double()
    entropy = -(torch.xlogy(target, target) + torch.xlogy(1 - target, 1 - target)).sum() / len(target)
    assert found["centerness"].item() == pytest.approx(entropy.item(), abs=1e-4)


def test_images_without_objects_give_finite_losses():
    empty = Targets(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))
    dense = dense_for(torch.zeros(0, 4), 2)
    found = detection_losses(dense, assign_batch(dense, (empty,)))
    assert found["box"].item() == 0
    assert found["class"].isfinite()
