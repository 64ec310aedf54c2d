"""BoxTeacher's moving average, its pseudo masks and what they do."""

import torch

from pseudolabel.condinst.network import CondInst
from pseudolabel.teachers.condinst.boxteacher import BoxTeacher
from pseudolabel.teachers.condinst.config import BoxTeacherConfig


def test_boxteacher_overfits_drawn_images_from_their_boxes_alone(overfitted, tiny, drawn, seed):
    config = BoxTeacherConfig(strong=False, **tiny)
    method, ious = overfitted(BoxTeacher, config, steps=160, seed=seed)
    assert ious.mean() > 0.75
    pseudo = method.pseudo_masks_of(drawn())
    quality = torch.cat([one.quality for one in pseudo])
    assert (quality > 0.7).all()
    assert (quality <= 1).all()


def small_method(tiny, **changes) -> BoxTeacher:
    torch.manual_seed(0)
    config = BoxTeacherConfig(**(tiny | changes))
    return BoxTeacher(CondInst(config, 2), config)


def test_an_untrained_teacher_has_no_pseudo_mask_and_costs_nothing(tiny, drawn):
    method = small_method(tiny)
    losses = method.losses(drawn(), progress=0.9)
    assert losses["pixel"] == 0
    assert losses["affinity"] == 0


def test_the_teacher_gets_no_gradient_and_follows_the_student(tiny, drawn):
    method = small_method(tiny)
    torch.stack(list(method.losses(drawn(), progress=0.5).values())).sum().backward()
    assert all(one.grad is None for one in method.teacher.parameters())
    with torch.no_grad():
        for one in method.network.parameters():
            one.add_(1.0)
    method.after_step(0)
    pairs = zip(method.teacher.parameters(), method.network.parameters(), strict=True)
    assert all(torch.allclose(a, b) for a, b in pairs)
