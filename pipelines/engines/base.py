"""What an engine is."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Protocol

from pseudolabel.pipelines.work.job import Job
from pseudolabel.registry import Registry

ENGINES = Registry(
    "engine",
    {
        "local": "pseudolabel.pipelines.engines.local:LocalEngine",
        "inline": "pseudolabel.pipelines.engines.inline:InlineEngine",
        "slurm": "pseudolabel.pipelines.engines.slurm:SlurmEngine",
        "ray": "pseudolabel.pipelines.engines.ray:RayEngine",
    },
)


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """Where to run and how; nothing of it can change a result.

    Args:
        workers: processes at once on this machine or in the Ray cluster, running tasks of a Slurm array; 0 = as many
            as there is room for.
        shards_per_task: shards of one Slurm task, which share one start and one loaded model.
        wait: False hands the work over and returns.
        sbatch_args: passed to sbatch as they are, such as `--partition=gpu`.
        ray_address: of a running cluster; `local` starts one on this machine.
    """

    name: str = "local"
    workers: int = 0
    shards_per_task: int = 1
    wait: bool = True
    sbatch_args: tuple[str, ...] = ()
    ray_address: str = "local"


class Engine(Protocol):
    """Maps shards to workers. It does not know what done means, and may work on a shard twice at once."""

    elsewhere: ClassVar[bool]  # workers may be on other machines: those, not the driver, know their devices

    def __init__(self, options: EngineOptions) -> None: ...

    def run(self, job: Job, shards: list[int], on_end: Callable[[int], None]) -> None:
        """One attempt at each shard; returns when none is active. A bad shard never raises.

        Args:
            on_end: called with a shard's index after its attempt, however it ended.

        Raises:
            SetupError: no worker can do this stage at all.
            SignalStopError: a signal asked to stop.
            HandedOver: the work goes on without this process, as `wait=False` asked.
        """


class HandedOver(Exception):  # noqa: N818 - not an error: what was asked for
    """The shards are in a queue and nobody here waits for them.

    Args:
        where: the ids under which the scheduler knows them.
    """

    def __init__(self, where: tuple[str, ...]) -> None:
        super().__init__(", ".join(where))
        self.where = where


def make_engine(options: EngineOptions) -> Engine:
    """The engine of that name.

    Raises:
        ConfigError: no such engine.
    """
    engine: Engine = ENGINES.load(options.name)(options)
    return engine
