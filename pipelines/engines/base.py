"""What an engine is."""

from collections.abc import Callable
from typing import Protocol

from pseudolabel.pipelines.job import Job
from pseudolabel.registry import Registry

ENGINES = Registry(
    "engine",
    {
        "local": "pseudolabel.pipelines.engines.local:LocalEngine",
        "inline": "pseudolabel.pipelines.engines.inline:InlineEngine",
    },
)


class Engine(Protocol):
    """Maps shards to workers. It does not know what done means, and may work on a shard twice at once."""

    def run(self, job: Job, shards: list[int], on_end: Callable[[int], None]) -> None:
        """One attempt at each shard; returns when none is active. A bad shard never raises.

        Args:
            on_end: called with a shard's index after its attempt, however it ended.

        Raises:
            SetupError: no worker can do this stage at all.
            SignalStopError: a signal asked to stop.
        """
