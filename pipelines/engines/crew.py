"""Supervised worker processes of one job.

Not a pool: `multiprocessing.Pool` waits for ever when a worker is killed, and an executor throws away all that is
pending. Each worker here has one pipe and one shard at a time; when it dies, its shard is noted and a new one starts.
"""

import multiprocessing.connection
import signal
from collections.abc import Callable
from typing import Any

from pseudolabel.errors import PseudolabelError, SignalStopError
from pseudolabel.files import sweep_temporaries
from pseudolabel.pipelines.engines.stop import StopSignals
from pseudolabel.pipelines.engines.warm import dismiss, hire
from pseudolabel.pipelines.engines.worker import WorkerProcess
from pseudolabel.pipelines.work import tally
from pseudolabel.pipelines.work.job import Job, SetupError

GRACE_S = 20.0
_POLL_S = 0.5


class Crew:
    """Long-lived workers, at most one per device in the list; hired when there is work, kept until `close`."""

    def __init__(self, job: Job, devices: list[str], stop: StopSignals) -> None:
        self._job, self._stop = job, stop
        self._free_devices = list(reversed(devices))
        self._workers: list[WorkerProcess] = []
        self._setup_error: SetupError | None = None

    def __enter__(self) -> "Crew":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def run(self, shards: list[int], on_end: Callable[[int], None]) -> None:
        """One attempt at each shard, more where one image crashes the decoder; as `Engine.run`."""
        queue = list(reversed(shards))
        while not self._finished(queue):
            self._feed(queue)
            self._collect(queue, on_end)
        if self._setup_error is not None:
            raise self._setup_error
        if self._stop.received is not None:
            raise SignalStopError(self._stop.received)

    def close(self) -> None:
        """Dismiss all workers: the idle ones leave or wait for the next stage, the others are killed."""
        dismiss(self._workers)
        self._workers.clear()
        sweep_temporaries(self._job.run.table(self._job.make_stage().writes))

    @property
    def _halted(self) -> bool:
        return self._stop.received is not None or self._setup_error is not None

    def _finished(self, queue: list[int]) -> bool:
        busy = any(worker.shard is not None for worker in self._workers)
        if self._halted:
            return not busy or self._stop.seconds_since() > GRACE_S or self._stop.count > 1
        return not queue and not busy

    def _feed(self, queue: list[int]) -> None:
        if self._halted:
            return
        idle = [worker for worker in self._workers if worker.shard is None]
        while self._free_devices and len(idle) < len(queue):
            idle.append(hire(self._job, self._free_devices.pop()))
            self._workers.append(idle[-1])
        for worker in idle:
            if queue:
                worker.give(queue.pop())

    def _collect(self, queue: list[int], on_end: Callable[[int], None]) -> None:
        waiting: list[Any] = [worker.pipe for worker in self._workers]
        waiting += [worker.process.sentinel for worker in self._workers]
        multiprocessing.connection.wait(waiting, timeout=_POLL_S)
        for worker in list(self._workers):
            tally.add(worker.images())
            message = worker.heard()
            if message is not None:
                self._receive(worker, message, on_end)
            elif not worker.process.is_alive():
                self._replace(worker, queue, on_end)

    def _receive(self, worker: WorkerProcess, message: Any, on_end: Callable[[int], None]) -> None:
        if isinstance(message, PseudolabelError):
            self._setup_error = SetupError(message)
            worker.shard, worker.refused = None, True
            return
        assert message == worker.shard, f"expected shard {worker.shard}, heard of {message}"
        worker.shard = None
        on_end(message)

    def _replace(self, worker: WorkerProcess, queue: list[int], on_end: Callable[[int], None]) -> None:
        self._workers.remove(worker)
        again = worker.bury()
        if worker.process.exitcode != -signal.SIGKILL or not self._workers:
            self._free_devices.append(worker.device)  # after a kill, most likely for memory, one worker fewer goes on
        if again and worker.shard is not None:
            queue.append(worker.shard)
        elif worker.shard is not None:
            on_end(worker.shard)
