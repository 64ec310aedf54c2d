"""The loop of all trainers, with a resume that is exact and an end that cannot be mistaken.

Which samples a step sees and which random numbers it draws follow from the seed and the step alone, so that a run that
was killed goes on from its last checkpoint to the same weights as one that was not (bit by bit on CPU).
"""

import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pseudolabel.errors import SignalStopError
from pseudolabel.progress import Progress
from pseudolabel.training.config import FitConfig
from pseudolabel.training.denormals import without_denormals
from pseudolabel.training.log import TrainingLog
from pseudolabel.training.method import Method
from pseudolabel.training.order import StepBatches, step_loader
from pseudolabel.training.processes import check_processes, is_first_process, requeue_slurm_job
from pseudolabel.training.step import Training, without_chatter
from pseudolabel.training.stop import StopRequest

__all__ = ["FitConfig", "fit"]


def fit(
    method: Method,
    load: Callable[[Sequence[int]], Any],
    samples: int,
    folder: Path,
    config: FitConfig,
    *,
    name: str = "training",
) -> int:
    """Train in place, from the folder's last checkpoint where there is one; the step at which it began.

    Args:
        load: the batch of these sample numbers.
        samples: how many there are.
        folder: takes checkpoints, `metrics.csv` and TensorBoard's files; one training, one folder.
        name: what the progress on stderr is called, such as `train-teacher, round 2 of 3`.

    Raises:
        NonFiniteLossError: names the images of the step.
        SignalStopError: SIGTERM, SIGUSR1 or SIGINT came to this process or another of the training; a checkpoint was
            written, the same call goes on from it. After SIGUSR1 in a job of Slurm, the job is in the queue again.
        MachineError: the disk is full; the checkpoint before is still there.
        InputError: the folder's checkpoint is of another network.
        ConfigError: torchrun or srun started another number of processes than the config says.
    """
    check_processes(config.devices, config.nodes)
    folder.mkdir(parents=True, exist_ok=True)
    with without_denormals(), without_chatter():
        training = Training(method, folder, config)
        first = training.restore()
        last = first if method.finished() else config.steps
        loader = step_loader(StepBatches(training.order(samples), load), first, last, workers=config.loader_workers)
        alone = training.is_first_process
        progress = Progress(name, last, unit="step", done=first, shown=alone, at_once=True)
        with StopRequest() as stop, TrainingLog(folder, first, writes=alone) as log, progress:
            batches = iter(loader)  # its processes note signals, too, and leave the end to this one
            for step in range(first, last):
                losses = training.step(step, next(batches))
                progress.advance(note=f"loss {losses['loss']:.3g}")
                if is_due(step, config.log_every, config.steps):
                    log.add(step, training.mean({**losses, **method.measured()}))
                number, finished = training.largest(stop.received, method.finished())
                due = is_due(step, config.checkpoint_every, config.steps)
                if due or number or finished or step + 1 == last:
                    training.save(step + 1)
                if number:
                    raise stopped(number)
                if due:
                    log.add_pictures(step + 1, method.pictures)
                if finished:
                    break
    method.cpu()
    return first


def is_due(step: int, every: int, steps: int) -> bool:
    """Whether what is done every so many of the steps is done after this one; at least once in a training."""
    return (step + 1) % min(every, steps) == 0


def stopped(number: int) -> SignalStopError:
    """What to raise after a signal to this process or another; a job that Slurm warned is in its queue again."""
    if number == signal.SIGUSR1 and "SLURM_JOB_ID" in os.environ and is_first_process():
        requeue_slurm_job()
    return SignalStopError(signal.Signals(number))
