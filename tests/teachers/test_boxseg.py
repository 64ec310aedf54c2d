"""BoxSeg: fused candidates as pseudo masks, pasted peers, and its variants."""

import pytest
import torch

from pseudolabel.condinst.inference import candidates_for_boxes
from pseudolabel.condinst.network import CondInst
from pseudolabel.teachers.condinst.boxseg import BoxSeg
from pseudolabel.teachers.condinst.config import BoxSegConfig


def test_boxseg_overfits_drawn_images_from_their_boxes_alone(overfitted, tiny, drawn, seed):
    config = BoxSegConfig(strong=False, min_tutor=0.1, **tiny)
    method, ious = overfitted(BoxSeg, config, steps=160, seed=seed)
    assert ious.mean() > 0.75
    assert method.bank.tutors, "good isolated objects must have become tutors"
    quality = torch.cat([one.quality for one in method.pseudo_masks_of(drawn())])
    assert (quality > 0.6).all()


def small_method(tiny, **changes) -> BoxSeg:
    torch.manual_seed(0)
    config = BoxSegConfig(**(tiny | changes))
    return BoxSeg(CondInst(config, 2), config)


VARIANTS = [
    {"ranking": "bpma", "tau_box": 0.1},
    {"fusion": "vote", "score": "code", "per_box": 20},
    {"fusion": "best", "score": "mcs"},
    {"score": "mcs-paper", "box_score": "sqrt_iacs_ctr"},
    {"classification": "focal", "copy_paste": False},
]


@pytest.mark.parametrize("changes", VARIANTS, ids=lambda changes: "-".join(map(str, changes.values())))
def test_every_variant_gives_masks_in_their_boxes_with_scores_up_to_one(tiny, drawn, changes):
    method, batch = small_method(tiny, **({"min_iou": 0.0, "tau_box": 0.0} | changes)), drawn()
    with torch.no_grad():  # a network that is sure of everything, so that there are masks to look at
        method.teacher.head.classes.bias.fill_(2.0)
        method.teacher.head.box.bias.fill_(2.0)
        method.teacher.head.controller.bias[-1] = 3.0
    for one, target in zip(method.pseudo_masks_of(batch), batch.targets, strict=True):
        assert one.masks.flatten(1).any(dim=1).any()
        assert (one.quality <= 1).all()
        assert one.quality.max() > 0
        for mask, box in zip(one.masks, target.boxes, strict=True):
            rows, columns = mask.nonzero(as_tuple=True)
            assert ((columns * 4 + 2 >= box[0].floor()) & (columns * 4 + 2 <= box[2])).all()
            assert ((rows * 4 + 2 >= box[1].floor()) & (rows * 4 + 2 <= box[3])).all()
    losses = method.losses(batch, progress=1.0)
    assert all(value.isfinite() for value in losses.values())


def test_a_candidate_below_the_box_threshold_makes_no_pseudo_mask(tiny, drawn):
    method = small_method(tiny, min_iou=0.0, tau_box=0.5)  # untrained scores are about 0.01
    assert all((one.quality == 0).all() and not one.masks.any() for one in method.pseudo_masks_of(drawn()))


def test_scored_by_the_boxes_iou_a_teacher_without_class_scores_has_masks_where_its_boxes_meet(tiny, drawn):
    method, batch = small_method(tiny, min_iou=0.0, per_box=2, box_score="box_iou", copy_paste=False), drawn()
    with torch.no_grad():
        method.teacher.head.classes.bias.fill_(-9.0)
        method.teacher.head.controller.bias[-1] = 3.0
    found = method.pseudo_masks_of(batch)
    features = method.teacher(batch.images)
    for index, one in enumerate(found):
        overlap = candidates_for_boxes(features.dense, index, batch.targets[index].boxes, (96, 96), k=2, min_iou=0.0)
        mean = overlap.box_iou.mean(dim=1)  # both speak: their IoU is above tau_box
        assert (overlap.box_iou > 0.1).all()
        assert torch.allclose(one.box_score, mean, atol=1e-5)
        assert one.masks.flatten(1).any(dim=1).all()


def test_a_checkpoint_carries_the_memory_bank(overfitted, tiny):
    config = BoxSegConfig(teacher_from=0.0, teacher_warmup=0.5, ema=0.9, strong=False, min_tutor=0.1, **tiny)
    method = BoxSeg(CondInst(config, 2), config)
    from pseudolabel.teachers.condinst.copy_paste import BankedTutor

    tutor = BankedTutor(torch.rand(3, 5, 4), torch.rand(5, 4) > 0.5, 1, 0.75, 0.625)
    method.bank.tutors = [tutor]
    other = BoxSeg(CondInst(config, 2), config)
    other.load_state_dict(method.state_dict())
    found = other.bank.tutors[0]
    assert torch.equal(found.pixels, tutor.pixels)
    assert torch.equal(found.mask, tutor.mask)
    assert (found.label, found.quality, found.box_score) == (1, 0.75, 0.625)
