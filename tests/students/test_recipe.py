"""What goes with a training: throughput, memory's advice, BatchNorm that learns, parts that are compiled."""

import pytest
import torch

from pseudolabel.errors import ConfigError, MachineError
from pseudolabel.pipelines.options.train_student import TrainStudentConfig
from pseudolabel.pipelines.work.memory import memory_errors_explained
from pseudolabel.students import throughput
from pseudolabel.students.base import batch_norms, learn_batch_norm, make_student
from pseudolabel.students.config import StudentConfig
from pseudolabel.students.data import collate
from pseudolabel.students.throughput import StepClock, Throughput, forward_backward_rate, measured

from .scenes import sample


def small(backbone: str = "tiny"):
    torch.manual_seed(0)
    return make_student(StudentConfig(backbone=backbone, width=40, convs=1), 2)


def test_the_rate_is_the_median_over_steps_without_the_first(monkeypatch: pytest.MonkeyPatch):
    ticks = iter([0.0, 9.0, 18.0, 20.0, 22.0, 122.0, 124.0])
    monkeypatch.setattr(throughput.time, "perf_counter", lambda: next(ticks))
    clock = StepClock()
    for _ in range(3):
        clock.tick(4)
    assert clock.rate is None
    for _ in range(4):
        clock.tick(4)
    assert clock.rate == 4 / 2


def test_what_is_skipped_counts_for_no_step(monkeypatch: pytest.MonkeyPatch):
    ticks = iter([0.0, 1.0, 2.0, 3.0, 100.0, 101.0])
    monkeypatch.setattr(throughput.time, "perf_counter", lambda: next(ticks))
    clock = StepClock()
    for _ in range(4):
        clock.tick(2)
    clock.skip()
    clock.tick(2)
    assert clock.rate == 2.0


def test_the_pure_rate_leaves_weights_and_gradients_as_they_were():
    student, batch = small(), collate([sample(0), sample(1)])
    before = {name: value.clone() for name, value in student.state_dict().items()}
    assert forward_backward_rate(student, batch, repeats=1) > 0
    assert all(torch.equal(before[name], value) for name, value in student.state_dict().items())
    assert all(parameter.grad is None for parameter in student.parameters())
    assert measured(StepClock(), student, batch, bf16=False) is None


def test_throughput_says_which_share_was_used():
    assert str(Throughput(30.0, 40.0)) == "30.0 images/s; forward and backward pass alone 40.0 (75% used)"


@pytest.mark.parametrize(
    ("error", "options", "message"),
    [
        pytest.param(
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
            {"batch_size": 8, "image_px": 512},
            r"GPU's memory is full \(CUDA out of memory.*: "
            r"lower --batch-size \(now 8\) or --image-px \(now 512\), or say --precision bf16$",
            id="of the GPU",
        ),
        pytest.param(
            RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 99 bytes"),
            {"batch_size": 1, "image_px": 512, "precision": "bf16"},
            r"machine's memory is full .*: lower --image-px \(now 512\)$",
            id="of the machine, with one image",
        ),
    ],
)
def test_full_memory_ends_with_the_setting_to_lower(error: Exception, options: dict, message: str):
    with pytest.raises(MachineError, match=message), memory_errors_explained(TrainStudentConfig(**options)):
        raise error


def test_other_errors_pass_as_they_are():
    with pytest.raises(RuntimeError, match="mat1 and mat2"), memory_errors_explained(TrainStudentConfig()):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")


def test_batch_norm_is_frozen_unless_it_is_said_to_learn():
    student = small("test_resnet").train()
    assert batch_norms(student)
    assert not any(norm.training or norm.weight.requires_grad for norm in batch_norms(student))
    learn_batch_norm(student, synchronised=False)
    assert all(norm.training and norm.weight.requires_grad for norm in batch_norms(student))
    assert not any(norm.training for norm in batch_norms(student.eval()))


def test_batch_norm_that_learns_moves_its_statistics():
    student = learn_batch_norm(small("test_resnet"), synchronised=False).train()
    norm = batch_norms(student)[0]
    before = norm.running_mean.clone()
    student.losses(collate([sample(0)]))
    assert not torch.equal(norm.running_mean, before)


def test_synchronised_batch_norm_keeps_the_names_of_the_weights():
    student = small("test_resnet")
    names = set(student.state_dict())
    learn_batch_norm(student, synchronised=True)
    assert all(isinstance(norm, torch.nn.SyncBatchNorm) for norm in batch_norms(student))
    assert set(student.state_dict()) == names


def test_an_encoder_without_batch_norm_cannot_train_it():
    with pytest.raises(ConfigError, match="--batch-norm frozen"):
        learn_batch_norm(small(), synchronised=False)


@pytest.mark.slow
def test_compiled_parts_give_the_same_losses():
    student, batch = small().eval(), collate([sample(0)])
    with torch.no_grad():
        plain = {name: float(value) for name, value in student.losses(batch).items()}
        for part in student.fixed_parts():
            part.compile()
        compiled = {name: float(value) for name, value in student.losses(batch).items()}
    assert compiled == pytest.approx(plain, rel=1e-4)


@pytest.mark.parametrize("name", ["condinst", "mask_rcnn", "query"])
def test_the_parts_to_compile_are_the_student_s_own(name: str):
    student = make_student(StudentConfig(model=name, backbone="tiny", width=40, convs=1, detections=5), 2)
    own = {id(module) for module in student.modules()}
    assert student.fixed_parts()
    assert all(id(part) in own for part in student.fixed_parts())
