"""BoxTeacher's moving average, its pseudo masks and what they do."""

import pytest
import torch

from pseudolabel.condinst.network import CondInst
from pseudolabel.teachers.condinst.boxteacher import BoxTeacher
from pseudolabel.teachers.condinst.config import BoxTeacherConfig
from pseudolabel.teachers.condinst.copy_paste import PseudoMasks
from pseudolabel.teachers.condinst.views import scaled


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


def test_the_log_tells_the_share_of_objects_that_have_a_pseudo_mask(tiny, drawn, monkeypatch):
    method, batch = small_method(tiny, teacher_from=0.5), drawn()
    none = torch.zeros(2, 24, 24), torch.zeros(2), torch.zeros(2)
    some = none[0], torch.tensor([0.5, 0.0]), torch.tensor([0.5, 0.0])
    answers = [PseudoMasks(*none), PseudoMasks(*some), PseudoMasks(*none)]
    monkeypatch.setattr(method, "pseudo_masks", lambda features, batch, index: answers[index])
    method.losses(batch, progress=0.9)
    method.losses(batch, progress=0.9)
    assert method.measured() == {"taught": 2 / 12}
    assert method.measured() == {"taught": 0}  # counted anew


@pytest.mark.parametrize(("classes", "hint"), [(1, "train longer"), (2, "--class-agnostic")], ids=["one", "two"])
def test_a_teacher_that_has_no_mask_while_it_teaches_is_told_of_once(tiny, drawn, caplog, classes, hint):
    config = BoxTeacherConfig(teacher_from=0.5, **tiny)
    method = BoxTeacher(CondInst(config, classes), config)  # untrained: nothing passes
    method.losses(drawn(classes=classes), progress=0.4)
    assert method.measured() == {"taught": 0}
    assert not caplog.messages
    for _ in range(2):
        method.losses(drawn(classes=classes), progress=0.9)
        assert method.measured() == {"taught": 0}
    assert len(caplog.messages) == 1
    assert "none of 6 objects got a pseudo mask" in caplog.messages[0]
    assert hint in caplog.messages[0]


def test_the_average_sees_one_size_and_the_student_several_with_the_same_masks(tiny, drawn, monkeypatch):
    method, batch = small_method(tiny, scales=[2.0], strong=False, teacher_from=0.0), drawn(with_masks=True)
    seen = []
    for network in (method.teacher, method.network):
        network.register_forward_pre_hook(lambda network, inputs: seen.append((network, inputs[0].shape[2])))
    sure = torch.ones(2)
    answers = [PseudoMasks(one.masks.float(), sure, sure) for one in batch.targets]
    monkeypatch.setattr(method, "pseudo_masks", lambda features, batch, index: answers[index])
    taught = []
    monkeypatch.setattr(method, "_taught", lambda instances, batch, pseudo, progress: taught.extend(pseudo) or {})
    method.losses(batch, progress=0.9)
    assert seen == [(method.teacher, 96), (method.network, 192)]
    for one, target in zip(taught, scaled(batch, 2.0).targets, strict=True):
        assert one.masks.shape[1:] == (48, 48)
        assert torch.equal(one.masks, target.masks)
        assert torch.equal(one.quality, sure)
