"""Worker processes on this machine, one per GPU or per core."""

from collections.abc import Callable
from typing import ClassVar

from pseudolabel.pipelines.engines.base import EngineOptions
from pseudolabel.pipelines.engines.crew import Crew
from pseudolabel.pipelines.engines.stop import StopSignals
from pseudolabel.pipelines.graph import load_stage
from pseudolabel.pipelines.work.device import available_cores, resolve_device
from pseudolabel.pipelines.work.job import Job


class LocalEngine:
    """Long-lived worker processes; a GPU's worker keeps its model between shards."""

    elsewhere: ClassVar[bool] = False

    def __init__(self, options: EngineOptions) -> None:
        self._workers = options.workers

    def run(self, job: Job, shards: list[int], on_end: Callable[[int], None]) -> None:
        device = resolve_device(job.device, load_stage(job.stage).resources.gpu)
        with StopSignals() as stop, Crew(job, worker_devices(device, self._workers), stop) as crew:
            crew.run(shards, on_end)


def worker_devices(device: str, workers: int) -> list[str]:
    """The device of each worker: one worker per GPU for `cuda`, one per core for `cpu`, unless a number is given."""
    if device == "cuda":
        import torch

        gpus = torch.cuda.device_count()
        return [f"cuda:{index % gpus}" for index in range(workers or gpus)]
    return [device] * (workers or available_cores())
