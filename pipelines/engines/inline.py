"""All shards in this process, one after the other: for debuggers and for tests of stages."""

from collections.abc import Callable
from typing import ClassVar

from pseudolabel.pipelines.engines.base import EngineOptions
from pseudolabel.pipelines.work.job import Job, ShardWorker


class InlineEngine:
    """No isolation: a crash of a decoder ends the program."""

    elsewhere: ClassVar[bool] = False

    def __init__(self, options: EngineOptions) -> None:
        del options  # one process is the point

    def run(self, job: Job, shards: list[int], on_end: Callable[[int], None]) -> None:
        worker = ShardWorker(job)
        for shard in shards:
            worker.attempt(shard)
            on_end(shard)
