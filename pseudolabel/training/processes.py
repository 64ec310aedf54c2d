"""Several processes of one training: which of them writes, waiting for that one, and what a scheduler is told."""

import logging
import os
import re
import signal
import subprocess
from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor, distributed, nn

from pseudolabel.errors import ConfigError

_log = logging.getLogger(__name__)
T = TypeVar("T")


def is_first_process() -> bool:
    """Whether this process is the one that writes: rank 0, also before the processes have met."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank() == 0
    return _rank_by_environment() == 0


def wait_for_all() -> None:
    """Returns when every process of the training has come here; at once where there is only one."""
    if distributed.is_available() and distributed.is_initialized():
        distributed.barrier()


def part() -> None:
    """Leave the group of processes, if there is one; the last that a training does."""
    if distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()


def largest_of_all(numbers: Sequence[int], device: torch.device) -> list[int]:
    """The largest of the numbers that the processes bring, place by place."""
    if number_of_processes() == 1:
        return list(numbers)
    values = torch.tensor(numbers, device=device)
    distributed.all_reduce(values, op=distributed.ReduceOp.MAX)
    return [int(value) for value in values]


def mean_of_all(values: Tensor) -> Tensor:
    """The mean of what the processes bring; the values themselves where there is one process."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return values.detach()
    mean = values.detach().clone()
    distributed.all_reduce(mean)
    return mean / distributed.get_world_size()


def normaliser(count: Tensor, least: float = 1.0) -> Tensor:
    """What a process divides its sum by, so that the mean over the processes is that of one with all their samples.

    Every process has to call it at every step, also one that has nothing to count: the others wait for it.

    Args:
        count: of this process alone; several counts at once in one tensor.
        least: the count of all processes is taken for at least this, against a division by nothing.
    """
    return mean_of_all(count.float()).clamp(min=least / number_of_processes())


def number_of_processes() -> int:
    """How many processes train together."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_world_size()
    return 1


def as_in_first_process(module: nn.Module) -> None:
    """Give the module the buffers that it has in the first process, such as the statistics of BatchNorm."""
    if number_of_processes() > 1:
        for buffer in module.buffers():
            distributed.broadcast(buffer, src=0)


def share(whole: Sequence[T]) -> Sequence[T]:
    """The part of a sequence that is this process's: every n-th of n processes."""
    if number_of_processes() == 1:
        return whole
    return whole[distributed.get_rank() :: distributed.get_world_size()]


def gathered(part: Sequence[T]) -> list[T]:
    """What all processes bring, process by process; the same list in each of them."""
    if number_of_processes() == 1:
        return list(part)
    parts: list[Sequence[T]] = [()] * number_of_processes()
    distributed.all_gather_object(parts, part)
    return [one for each in parts for one in each]


def check_processes(devices: int, nodes: int) -> None:
    """Pass if the launcher has started as many processes as the options say.

    Raises:
        ConfigError: it has not; a training must not go on with other batches than those asked for.
    """
    started = _started_processes()
    if started is not None and started != devices * nodes:
        raise ConfigError(
            f"{started} processes were started, but --devices {devices} times --nodes {nodes} is {devices * nodes}; "
            "give the processes per machine as --devices and the machines as --nodes"
        )
    if _restarts_without_a_fresh_store():
        _log.warning(
            "torchrun cannot restart this training after a process has died: start it with "
            "TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 in its environment"
        )


def requeue_slurm_job() -> None:
    """Ask Slurm to start this job again; what it answers is logged, since there is nobody else to tell."""
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    job = f"{array}_{task}" if array else os.environ["SLURM_JOB_ID"]
    if not re.fullmatch(r"\d+(_\d+)?", job):
        raise ConfigError(f"SLURM_JOB_ID {job!r} is no number")
    done = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True, check=False)
    if done.returncode:
        _log.error("scontrol requeue %s: %s; submit the job again", job, done.stderr.strip())
    else:
        _log.warning("%s: job %s goes back into Slurm's queue", signal.SIGUSR1.name, job)


def _rank_by_environment() -> int:
    """torchrun's rank, the one that Fabric gives the processes that it starts, or that of a task of `srun`."""
    environment = os.environ
    if "RANK" in environment:
        return int(environment["RANK"])
    if "LOCAL_RANK" in environment:
        return int(environment["LOCAL_RANK"]) or int(environment.get("NODE_RANK", "0"))
    return int(environment["SLURM_PROCID"]) if _srun_processes() else 0


def _started_processes() -> int | None:
    if "TORCHELASTIC_RUN_ID" in os.environ:
        return int(os.environ["WORLD_SIZE"])
    return _srun_processes()


def _srun_processes() -> int | None:
    """Tasks of this step of `srun`, None outside of one; a batch script alone is no step of several tasks."""
    if not {"SLURM_STEP_ID", "SLURM_PROCID", "SLURM_STEP_NUM_TASKS"} <= set(os.environ):
        return None
    return int(os.environ["SLURM_STEP_NUM_TASKS"])


def _restarts_without_a_fresh_store() -> bool:
    """torchrun shares its store across restarts unless told otherwise, with the addresses of the dead in it."""
    may_restart = int(os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0")) > 0
    return may_restart and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
