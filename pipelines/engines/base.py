"""What an engine is."""

from collections.abc import Callable
from typing import ClassVar, Protocol

from pseudolabel.pipelines.options.engine import ENGINES, EngineOptions
from pseudolabel.pipelines.work.job import Job


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
