"""How fast a student trains, beside how fast its network alone could: the rest is loading, views and bookkeeping."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

import torch

from pseudolabel.students.base import Student
from pseudolabel.students.data import StudentBatch

_WARM_UP = 2  # steps that are not counted


@dataclass(frozen=True, slots=True)
class Throughput:
    """Images per second and process."""

    training: float
    forward_backward: float

    @property
    def share(self) -> float:
        """Which part of the time forward and backward pass could have filled."""
        return self.training / self.forward_backward

    def __str__(self) -> str:
        alone = f"forward and backward pass alone {self.forward_backward:.1f} ({self.share:.0%} used)"
        return f"{self.training:.1f} images/s; {alone}"


class StepClock:
    """Times whole steps, from the end of one to the end of the next; the median keeps checkpoints and pauses out."""

    def __init__(self) -> None:
        self._last: float | None = None
        self._images_per_s: list[float] = []

    def tick(self, images: int) -> None:
        """A step over that many images has ended."""
        now = time.perf_counter()
        if self._last is not None:
            self._images_per_s.append(images / (now - self._last))
        self._last = now

    def skip(self) -> None:
        """Something else took time: the step that now begins is measured from here."""
        self._last = time.perf_counter()

    @property
    def rate(self) -> float | None:
        """Images per second, None before the third step."""
        counted = self._images_per_s[_WARM_UP:]
        return median(counted) if counted else None


def measured(clock: StepClock, student: Student, batch: StudentBatch, *, bf16: bool) -> Throughput | None:
    """What the clock saw beside the pure passes of a batch on the student's device; None after too few steps."""
    if clock.rate is None:
        return None
    return Throughput(clock.rate, forward_backward_rate(student, batch, bf16=bf16))


def forward_backward_rate(student: Student, batch: StudentBatch, *, bf16: bool = False, repeats: int = 5) -> float:
    """Images per second of losses and gradients of one batch that lies on the student's device, all else left out."""
    device = batch.images.device
    student.train()

    def once() -> None:
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16):
            losses = student.losses(batch)
        torch.stack([loss.float() for loss in losses.values()]).sum().backward()  # type: ignore[no-untyped-call]  # torch has none
        student.zero_grad(set_to_none=True)

    once()
    return len(batch.samples) / median([_seconds(once, device) for _ in range(repeats)])


def _seconds(work: Callable[[], None], device: torch.device) -> float:
    _wait_for(device)
    started = time.perf_counter()
    work()
    _wait_for(device)
    return time.perf_counter() - started


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
