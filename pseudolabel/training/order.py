"""Which samples a step trains on: a function of the seed and the step alone, so that a resumed run goes on exactly."""

import functools
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from pseudolabel.training.stop import STOP_SIGNALS


@dataclass(frozen=True, slots=True)
class BatchOrder:
    """Every sample once per epoch, shuffled anew for each; the last batch of an epoch is filled from its beginning."""

    samples: int
    batch_size: int  # of one process
    seed: int = 0
    world_size: int = 1
    rank: int = 0

    def __post_init__(self) -> None:
        if self.samples < 1 or self.batch_size < 1:
            raise ValueError(f"expected at least one sample and one per batch, got {self.samples}, {self.batch_size}")

    @property
    def steps_per_epoch(self) -> int:
        return -(-self.samples // (self.batch_size * self.world_size))

    def batch(self, step: int) -> list[int]:
        """Indices of the samples of this process at a step."""
        epoch, position = divmod(step, self.steps_per_epoch)
        order = _shuffled(self.samples, self.seed * 1_000_003 + epoch)
        first = (position * self.world_size + self.rank) * self.batch_size
        return order[torch.arange(first, first + self.batch_size) % self.samples].tolist()


@functools.lru_cache(maxsize=2)
def _shuffled(samples: int, seed: int) -> Tensor:
    """The order of one epoch; a million numbers take longer to shuffle than a step of a small network."""
    return torch.randperm(samples, generator=torch.Generator().manual_seed(seed))


class StepBatches(Dataset[Any]):
    """The batch of every step, by the step's number."""

    def __init__(self, order: BatchOrder, load: Callable[[Sequence[int]], Any]) -> None:
        self.order, self.load = order, load

    def __getitem__(self, step: int) -> Any:
        return self.load(self.order.batch(step))


def step_loader(batches: StepBatches, first: int, last: int, *, workers: int = 0) -> DataLoader[Any]:
    """A loader whose items are the batches of steps `first` to `last` - 1."""
    return DataLoader(
        batches,
        batch_size=None,
        sampler=range(first, last),
        num_workers=workers,
        worker_init_fn=_leave_signals_to_the_first,
        pin_memory=torch.cuda.is_available(),
    )


def _leave_signals_to_the_first(worker: int) -> None:
    """A signal to the whole group must not kill those that the training needs to end its step; they end with it."""
    del worker
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
