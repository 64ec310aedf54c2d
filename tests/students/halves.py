"""Losses and gradients of half a batch in each of two processes: `python -m tests.students.halves FOLDER RANK`.

The first process writes `FOLDER/CASE-STUDENT.pt`: the mean losses of both, and the gradients as DDP has averaged them.
"""

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from pseudolabel.students.base import Student, make_student
from pseudolabel.students.config import StudentConfig
from pseudolabel.students.data import Sample, collate
from pseudolabel.students.names import STUDENTS
from pseudolabel.training.processes import mean_of_all

from .scenes import sample


def without_objects(one: Sample) -> Sample:
    return one.select(torch.zeros(len(one.boxes), dtype=torch.bool))


def cases() -> dict[str, list[Sample]]:
    """Four samples each; a process takes the first two or the last two."""
    whole = [sample(seed, weight=1 - 0.2 * seed) for seed in range(4)]
    boxes = [sample(seed, role="box", mask=None) for seed in range(4)]
    few = [one.select(torch.arange(len(one.boxes)) < 1) for one in whole]
    return {
        "masks": whole,
        "uneven": [*whole[:2], few[2], few[3]],
        "second_half_empty": [*whole[:2], *map(without_objects, whole[2:])],
        "first_half_boxes": [*boxes[:2], *whole[2:]],
        "nothing": [*map(without_objects, whole)],
        "all_ignored": [replace(without_objects(one), ignored=torch.ones_like(one.ignored)) for one in whole],
    }


def new_student(name: str) -> Student:
    torch.manual_seed(0)
    return make_student(StudentConfig(model=name, backbone="tiny", width=40, convs=1, detections=20), 2)


class Losses(nn.Module):
    """A student's losses as a forward pass, which is what DDP wants."""

    def __init__(self, student: Student) -> None:
        super().__init__()
        self.student = student

    def forward(self, samples: list[Sample]) -> dict[str, Tensor]:
        return self.student.losses(collate(samples))


def losses_and_gradients(module: nn.Module, samples: list[Sample]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """By name; a parameter that no loss reaches has none."""
    torch.manual_seed(5)
    losses = module(samples)
    torch.stack(list(losses.values())).sum().backward()
    gradients = {name: p.grad for name, p in module.named_parameters() if p.grad is not None}
    return {name: value.detach() for name, value in losses.items()}, gradients


def results(rank: int) -> Iterator[tuple[str, dict[str, dict[str, Tensor]]]]:
    for case, samples in cases().items():
        for name in STUDENTS:
            module = DistributedDataParallel(Losses(new_student(name)), find_unused_parameters=True)
            losses, gradients = losses_and_gradients(module, samples[2 * rank : 2 * rank + 2])
            means = {key: mean_of_all(value) for key, value in losses.items()}
            plain = {key.removeprefix("module."): value for key, value in gradients.items()}
            yield f"{case}-{name}", {"losses": means, "gradients": plain}


def main() -> None:
    folder, rank = Path(sys.argv[1]), int(sys.argv[2])
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=2)
    for name, content in results(rank):
        if rank == 0:
            torch.save(content, folder / f"{name}.pt")
    distributed.destroy_process_group()


if __name__ == "__main__":
    main()
