"""One step of a training, and its state on disk, in as many processes as there are."""

import contextlib
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.fabric import Fabric
from torch import Tensor, nn

from pseudolabel.errors import MachineError
from pseudolabel.training.config import FitConfig
from pseudolabel.training.guard import check_gradients, check_losses
from pseudolabel.training.method import Method
from pseudolabel.training.order import BatchOrder
from pseudolabel.training.processes import largest_of_all, mean_of_all
from pseudolabel.training.resume import Checkpoints
from pseudolabel.training.schedule import learning_rate_factor


class Training:
    """One step of a training, and its state on disk, in as many processes as there are."""

    def __init__(self, method: Method, folder: Path, config: FitConfig) -> None:
        self._fabric = _launched(config)
        optimizer = torch.optim.AdamW(method.parameter_groups(), weight_decay=config.weight_decay)
        self._peaks = [group["lr"] for group in optimizer.param_groups]
        self._losses, self._optimizer = self._fabric.setup(_Losses(method), optimizer)
        self._method, self._config, self._checkpoints = method, config, Checkpoints(folder)

    @property
    def is_first_process(self) -> bool:
        """Whether this is the process that writes and speaks."""
        return bool(self._fabric.is_global_zero)

    def restore(self) -> int:
        """The step of the checkpoint from which method and optimiser go on, 0 for none.

        Raises:
            MachineError: not all processes see the same one.
        """
        with self._fabric.rank_zero_first():
            if self._fabric.is_global_zero:
                self._checkpoints.sweep()
            first = self._checkpoints.restore(self._method, self._optimizer)
        if first != self.largest(first)[0]:
            raise MachineError(f"{self._checkpoints.folder}: this process sees other checkpoints than the first one")
        return first

    def order(self, samples: int) -> BatchOrder:
        """Which samples this process sees at which step."""
        fabric, config = self._fabric, self._config
        return BatchOrder(samples, config.batch_size, config.seed, fabric.world_size, fabric.global_rank)

    def step(self, step: int, batch: Any) -> dict[str, float]:
        """Optimise on a batch of this process's; its losses, and `loss`, their sum.

        Raises:
            NonFiniteLossError: before anything has been changed by it.
        """
        fabric, config = self._fabric, self._config
        batch = fabric.to_device(batch)
        torch.manual_seed((config.seed * 1_000_003 + step) * 4096 + fabric.global_rank)
        images = self._method.image_names(batch)
        self._set_learning_rates(step)
        losses = self._losses(lambda: batch, step / config.steps)
        terms = torch.stack(list(losses.values()))
        self._optimizer.zero_grad()
        fabric.backward(total := terms.sum())
        norm = fabric.clip_gradients(self._losses, self._optimizer, max_norm=config.clip_norm, error_if_nonfinite=False)
        *values, loss, length = torch.stack([*terms.detach(), total.detach(), norm]).tolist()  # waits for a GPU once
        seen = dict(zip(losses, values, strict=True))
        check_losses(seen, step=step, images=images)
        check_gradients(self._method, length, step=step, images=images)
        self._optimizer.step()
        self._method.after_step(step)
        return {**seen, "loss": loss}

    def mean(self, figures: Mapping[str, float]) -> dict[str, float]:
        """The means of all processes' figures."""
        means = mean_of_all(torch.tensor(list(figures.values()), device=self._fabric.device))
        return dict(zip(figures, means.tolist(), strict=True))

    def largest(self, *numbers: int) -> list[int]:
        """The largest that any process has, so that none ends alone."""
        return largest_of_all(numbers, self._fabric.device)

    def save(self, done: int) -> None:
        """A checkpoint after so many steps, before any process goes on."""
        if self._fabric.is_global_zero:
            self._checkpoints.save(done, self._method, self._optimizer)
        self._fabric.barrier()

    def _set_learning_rates(self, step: int) -> None:
        config = self._config
        factor = learning_rate_factor(step, steps=config.steps, warmup=config.warmup, schedule=config.schedule)
        for group, peak in zip(self._optimizer.param_groups, self._peaks, strict=True):
            group["lr"] = peak * factor


class _Losses(nn.Module):
    """What precision and DDP wrap. They would copy a batch part by part, which frozen dataclasses do not allow: it
    comes as what a function gives.
    """

    def __init__(self, method: Method) -> None:
        super().__init__()
        self._method = method

    def forward(self, batch: Callable[[], Any], progress: float) -> dict[str, Tensor]:
        return dict(self._method.losses(batch(), progress=progress))


def _launched(config: FitConfig) -> Fabric:
    kind, _, index = config.device.partition(":")
    fabric = Fabric(
        accelerator="gpu" if kind == "cuda" else "cpu",
        devices=[int(index)] if index else config.devices,
        num_nodes=config.nodes,
        # a part of the network may have nothing to learn from a batch, such as a mask head without objects
        strategy="ddp_find_unused_parameters_true" if config.devices * config.nodes > 1 else "auto",
        precision="bf16-mixed" if config.precision == "bf16" else "32-true",
    )
    fabric.launch()
    return fabric


@contextlib.contextmanager
def without_chatter() -> Iterator[None]:
    """Lightning's tips and notes kept to itself."""
    loggers = [logging.getLogger(name) for name in ("lightning.fabric", "lightning.pytorch")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*`srun` command is available.*")
        for logger in loggers:
            logger.setLevel(logging.WARNING)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
