"""Workers that wait for the next stage: most of what a small run takes is the start of processes."""

import contextlib
from collections.abc import Iterator

from pseudolabel.pipelines.engines.worker import WorkerProcess
from pseudolabel.pipelines.work.job import Job

_waiting: list[WorkerProcess] = []
_depth = 0  # of `warm_workers`


@contextlib.contextmanager
def warm_workers() -> Iterator[None]:
    """While the block runs, workers that are done with a stage wait for the next one instead of ending."""
    global _depth
    _depth += 1
    try:
        yield
    finally:
        _depth -= 1
        if not _depth:
            let_go()


def hire(job: Job, device: str) -> WorkerProcess:
    """A worker for a job: one that waits, else a new process."""
    while _waiting:
        worker = _waiting.pop()
        if worker.process.is_alive():
            worker.employ(job, device)
            return worker
        worker.wait()
    return WorkerProcess(job, device)


def dismiss(workers: list[WorkerProcess]) -> None:
    """The end of a stage: who is idle waits, if anybody may; the others end, those at work by force."""
    staying = [worker for worker in workers if _depth and worker.shard is None and not worker.refused]
    leaving = [worker for worker in workers if worker not in staying]
    _waiting.extend(staying)
    _end(leaving)


def let_go() -> None:
    """End all that wait, as before a training, which wants the memory."""
    _end(_waiting)
    _waiting.clear()


def _end(workers: list[WorkerProcess]) -> None:
    for worker in workers:
        worker.leave()
    for worker in workers:
        worker.wait()
