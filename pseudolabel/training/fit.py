"""The loop of all trainers: Lightning, with a resume that is exact and an end that cannot be mistaken.

The whole training is one Lightning epoch of `steps` batches. Which samples a step sees and which random numbers it
draws follow from the seed and the step alone, so a run that was killed goes on from its last checkpoint to the same
weights as one that was not (bit by bit on CPU).
"""

import logging
import math
import os
import signal
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning.pytorch as lightning
import torch
from lightning.fabric.utilities import move_data_to_device
from lightning.pytorch.callbacks import Callback, ModelCheckpoint, TQDMProgressBar
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch import Tensor
from torch.utils.data import DataLoader

from pseudolabel.errors import SignalStopError
from pseudolabel.training.config import FitConfig
from pseudolabel.training.denormals import without_denormals
from pseudolabel.training.guard import check_gradients, check_losses
from pseudolabel.training.method import Method
from pseudolabel.training.order import BatchOrder, StepBatches, step_loader
from pseudolabel.training.processes import check_processes, largest_of_all, mean_of_all, requeue_slurm_job

_STOPS = (signal.SIGTERM, signal.SIGUSR1)


def fit(method: Method, load: Callable[[Sequence[int]], Any], samples: int, folder: Path, config: FitConfig) -> int:
    """Train in place, from the folder's last checkpoint where there is one; the step at which it began.

    Args:
        load: the batch of these sample numbers.
        samples: how many there are.
        folder: takes `last.ckpt`, `metrics.csv` and TensorBoard's files; one training, one folder.

    Raises:
        NonFiniteLossError: names the images of the step.
        SignalStopError: SIGTERM or SIGUSR1 came to this process or another of the training; a checkpoint was written,
            the same call goes on from it. After SIGUSR1 in a job of Slurm, the job is in the queue again.
        ConfigError: torchrun or srun started another number of processes than the config says.
    """
    check_processes(config.devices, config.nodes)
    module = _Module(method, load, samples, config)
    last = folder / "last.ckpt"
    try:
        with without_denormals(), _without_chatter(), _handlers_restored():
            trainer = _trainer(folder, config)
            trainer.fit(module, ckpt_path=last if last.exists() else None, weights_only=True)
    except SIGTERMException:  # between Lightning's first look at signals and the first step
        raise SignalStopError(signal.SIGTERM) from None
    if trainer.interrupted:
        raise SignalStopError(signal.SIGINT)
    if trainer.global_step < config.steps and not method.finished():
        raise SignalStopError(signal.SIGTERM)
    return module.first_step


@contextmanager
def _handlers_restored() -> Iterator[None]:
    """Whoever handled signals before handles them afterwards, whatever Lightning and its callbacks leave behind."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in _STOPS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def learning_rate_factor(step: int, *, steps: int, warmup: float, schedule: str = "cosine") -> float:
    """Share of the peak learning rate: a linear rise over the first `warmup` of the steps, then the fall.

    Half a cosine to 0, or `step`: a tenth from two thirds of the steps on and a hundredth from eight ninths on, as the
    1x schedule of detectors has it.
    """
    rise = warmup * steps
    if step < rise:
        return (step + 1) / (rise + 1)
    if schedule == "step":
        return 0.1 ** ((3 * step >= 2 * steps) + (9 * step >= 8 * steps))
    return 0.5 * (1 + math.cos(math.pi * (step - rise) / max(steps - rise, 1)))


class _Batch:
    """A batch that Lightning leaves alone, but for asking it to move: it cannot copy frozen dataclasses."""

    def __init__(self, content: Any) -> None:
        self.content = content

    def to(self, device: torch.device, **_: Any) -> "_Batch":
        content = self.content
        return _Batch(content.to(device) if hasattr(content, "to") else move_data_to_device(content, device))


class _Module(lightning.LightningModule):
    """A method as Lightning wants it."""

    def __init__(self, method: Method, load: Callable[[Sequence[int]], Any], samples: int, config: FitConfig) -> None:
        super().__init__()
        self.method, self.fit_config, self.first_step = method, config, 0
        self._samples = samples
        self._load = lambda places: _Batch(load(places))
        self._images: Sequence[str] = ()

    def train_dataloader(self) -> DataLoader[Any]:
        """Only the steps that are left: Lightning has read the checkpoint when it asks."""
        config, trainer = self.fit_config, self.trainer
        self.first_step = int(trainer.global_step)
        order = BatchOrder(self._samples, config.batch_size, config.seed, trainer.world_size, trainer.global_rank)
        return step_loader(StepBatches(order, self._load), self.first_step, config.steps, workers=config.loader_workers)

    def on_train_batch_start(self, batch: _Batch, batch_idx: int) -> None:
        del batch_idx
        torch.manual_seed((self.fit_config.seed * 1_000_003 + self.trainer.global_step) * 4096 + self.global_rank)
        self._images = self.method.image_names(batch.content)

    def training_step(self, batch: _Batch, batch_idx: int) -> Tensor:
        del batch_idx
        step = int(self.trainer.global_step)
        losses = self.method.losses(batch.content, progress=step / self.fit_config.steps)
        check_losses(losses, step=step, images=self._images)
        total = torch.stack(list(losses.values())).sum()
        self.log_dict(self._logged({**losses, "loss": total}), batch_size=self.fit_config.batch_size)
        return total

    def _logged(self, losses: dict[str, Tensor]) -> dict[str, Tensor]:
        """The losses as the log has them: means over all processes, where it is time for a line."""
        due = (int(self.trainer.global_step) + 1) % self.trainer.log_every_n_steps == 0
        if self.trainer.world_size == 1 or not due:
            return losses
        means = mean_of_all(torch.stack(list(losses.values())))
        return dict(zip(losses, means.unbind(), strict=True))

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        del optimizer
        gradients = [p.grad.norm() for p in self.method.parameters() if p.grad is not None]
        check_gradients(self.method, torch.stack(gradients).norm(), step=self.trainer.global_step, images=self._images)

    def configure_optimizers(self) -> Any:
        config = self.fit_config
        optimizer = torch.optim.AdamW(self.method.parameter_groups(), weight_decay=config.weight_decay)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer,
            lambda step: learning_rate_factor(step, steps=config.steps, warmup=config.warmup, schedule=config.schedule),
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class _AfterStep(Callback):
    """The method's own part of a step. A callback, because the module's hook would come after the checkpoint."""

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, *_: object, **__: object
    ) -> None:
        pl_module.method.after_step(int(trainer.global_step) - 1)
        finished = pl_module.method.finished()
        if trainer.world_size > 1:  # no process may stop alone
            finished = bool(largest_of_all(int(finished), pl_module.device))
        trainer.should_stop = trainer.should_stop or finished


class _Pictures(Callback):
    """Writes the method's pictures to TensorBoard with every checkpoint."""

    def __init__(self, every: int) -> None:
        self._every = every

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, *_: object, **__: object
    ) -> None:
        step = int(trainer.global_step)
        if step % self._every or not trainer.is_global_zero:
            return
        board = next(logger for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)).experiment
        pictures: Mapping[str, Tensor] = pl_module.method.pictures()
        for name, picture in pictures.items():
            board.add_image(name, picture, step)


class _StopOnSignal(Callback):
    """Ends the training between two steps after SIGTERM or SIGUSR1 to any of its processes, with a checkpoint.

    Lightning's own handlers are put aside: they write a checkpoint in the middle of a step, and a signal that reaches
    one process of several makes them wait for the others for ever.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._received = path, 0

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        del trainer, pl_module
        if threading.current_thread() is threading.main_thread():
            for number in _STOPS:
                signal.signal(number, self._note)

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, *_: object, **__: object
    ) -> None:
        several = trainer.world_size > 1
        number = largest_of_all(self._received, pl_module.device) if several else self._received
        if number:
            trainer.save_checkpoint(self._path)
            if number == signal.SIGUSR1 and "SLURM_JOB_ID" in os.environ and trainer.is_global_zero:
                requeue_slurm_job()
            raise SignalStopError(signal.Signals(number))

    def _note(self, number: int, _: object) -> None:
        self._received = self._received or number  # Slurm and srun may send the same one twice


def _trainer(folder: Path, config: FitConfig) -> lightning.Trainer:
    folder.mkdir(parents=True, exist_ok=True)
    kind, _, index = config.device.partition(":")
    every = min(config.checkpoint_every, config.steps)
    return lightning.Trainer(
        default_root_dir=folder,
        accelerator="gpu" if kind == "cuda" else "cpu",
        devices=[int(index)] if index else config.devices,
        num_nodes=config.nodes,
        # a part of the network may have nothing to learn from a batch, such as a mask head without objects
        strategy="ddp_find_unused_parameters_true" if config.devices * config.nodes > 1 else "auto",
        precision="bf16-mixed" if config.precision == "bf16" else "32-true",
        max_steps=config.steps,
        max_epochs=-1,
        gradient_clip_val=config.clip_norm,
        use_distributed_sampler=False,
        log_every_n_steps=min(config.log_every, config.steps),
        logger=[
            CSVLogger(folder, name="", version=""),
            TensorBoardLogger(folder, name="", version="tensorboard"),
        ],
        callbacks=[
            _AfterStep(),
            _Pictures(every),
            ModelCheckpoint(folder, filename="last", every_n_train_steps=every, enable_version_counter=False),
            _StopOnSignal(folder / "last.ckpt"),
            TQDMProgressBar(refresh_rate=1 if os.isatty(2) else 0),
        ],
        enable_model_summary=False,
    )


@contextmanager
def _without_chatter() -> Iterator[None]:
    """Lightning's tips and notes kept to itself; it cannot know that the loader gives only the steps that are left,
    that no validation is meant, or that frozen layers are in eval mode by intention.
    """
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    with warnings.catch_warnings():
        for message in (
            ".*checkpoint that ended before the epoch ended.*",
            ".*does not have many workers.*",
            ".*Checkpoint directory.*exists and is not empty.*",
            ".*Experiment logs directory.*exists.*",
            ".*`srun` command is available.*",
            ".*module.* in eval mode at the start of training.*",
            ".*isinstance.treespec, LeafSpec.*",
        ):
            warnings.filterwarnings("ignore", message=message)
        logger.setLevel(logging.WARNING)
        try:
            yield
        finally:
            logger.setLevel(level)
