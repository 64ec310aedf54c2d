"""Laws that every registered student keeps; a new one is picked up by its name."""

from pathlib import Path

import pytest
import torch

from pseudolabel.students.base import Student, StudentConfig, make_student
from pseudolabel.students.data import Sample, StudentBatch, collate
from pseudolabel.students.names import STUDENTS
from pseudolabel.students.save import load_student, save_student

CATEGORIES = [{"id": 4, "name": "disc"}, {"id": 9, "name": "star"}]


def _student(name: str) -> Student:
    torch.manual_seed(0)
    config = StudentConfig(model=name, backbone="tiny", width=40, convs=1, least_score=0.0)
    return make_student(config, len(CATEGORIES))


def _batch(objects: int = 2) -> StudentBatch:
    torch.manual_seed(1)
    masks = torch.zeros(2, 64, 64, dtype=torch.bool)
    masks[0, 8:30, 10:40], masks[1, 36:60, 20:52] = True, True
    boxes = torch.tensor([[10.0, 8.0, 40.0, 30.0], [20.0, 36.0, 52.0, 60.0]])
    sample = Sample(
        name="a",
        image=torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8),
        boxes=boxes[:objects],
        labels=torch.tensor([0, 1])[:objects],
        masks=masks[:objects],
        has_mask=torch.ones(objects, dtype=torch.bool),
        weights=torch.ones(objects),
        unsure=torch.zeros(objects, 64, 64, dtype=torch.bool),
        ignored=torch.zeros(64, 64, dtype=torch.bool),
    )
    return collate([sample, sample])


@pytest.mark.parametrize("name", list(STUDENTS))
@pytest.mark.parametrize("objects", [2, 0], ids=["two objects", "none"])
def test_losses_are_finite_scalars_that_reach_the_encoder(name: str, objects: int) -> None:
    student = _student(name).train()
    losses = student.losses(_batch(objects))
    assert all(loss.shape == () and torch.isfinite(loss) for loss in losses.values())
    torch.stack(list(losses.values())).sum().backward()
    assert any(parameter.grad is not None for parameter in student.encoder().parameters())


@pytest.mark.parametrize("name", list(STUDENTS))
def test_instances_lie_on_their_image_and_come_best_first(name: str) -> None:
    student = _student(name).eval()
    (found,) = student.predict([torch.randint(0, 256, (3, 48, 80), dtype=torch.uint8)], image_px=64)
    assert found.masks.shape[1:] == (48, 80)
    assert len(found.boxes) == len(found.labels) == len(found.scores) == len(found.masks)
    assert bool((found.scores[1:] <= found.scores[:-1]).all())
    assert set(found.labels.tolist()) <= {0, 1}


@pytest.mark.parametrize("name", list(STUDENTS))
def test_a_student_that_was_saved_says_the_same(name: str, tmp_path: Path) -> None:
    student, image = _student(name).eval(), torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8)
    save_student(tmp_path / "s.safetensors", student, student.config, CATEGORIES, image_px=64, about={})
    loaded = load_student(tmp_path / "s.safetensors")
    ours, theirs = student.predict([image])[0], loaded.student.predict([image])[0]
    assert torch.equal(ours.scores, theirs.scores)
    assert torch.equal(ours.masks, theirs.masks)
    assert [one["name"] for one in loaded.categories] == ["disc", "star"]
