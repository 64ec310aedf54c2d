"""Supervised worker processes on this machine, one per GPU or per core.

Not a pool: `multiprocessing.Pool` waits for ever when a worker is killed, and an executor throws away all that is
pending. Each worker here has one pipe and one shard at a time; when it dies, its shard is noted and a new one starts.
"""

import contextlib
import ctypes
import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from typing import Any

from pseudolabel.errors import MachineError, PseudolabelError, SignalStopError
from pseudolabel.pipelines.commit import sweep_temporaries
from pseudolabel.pipelines.job import Job, SetupError, ShardWorker, write_death

GRACE_S = 20.0
_POLL_S = 0.5
_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
_PR_SET_PDEATHSIG = 1


@dataclass(slots=True)
class _Worker:
    process: SpawnProcess
    pipe: Connection
    device: str
    shard: int | None = None


class LocalEngine:
    """Long-lived worker processes; a GPU's worker keeps its model between shards."""

    def __init__(self, *, workers: int = 0) -> None:
        self._workers = workers

    def run(self, job: Job, shards: list[int], on_end: Callable[[int], None]) -> None:
        devices = worker_devices(job.device, self._workers)[: len(shards)]
        with _StopSignals() as stop:
            _Supervisor(job, devices, on_end, stop).run(shards)


def worker_devices(device: str, workers: int) -> list[str]:
    """The device of each worker: one worker per GPU for `cuda`, one per core for `cpu`, unless a number is given."""
    if device == "cuda":
        import torch

        gpus = torch.cuda.device_count()
        return [f"cuda:{index % gpus}" for index in range(workers or gpus)]
    return [device] * (workers or (os.cpu_count() or 1))


class _Supervisor:
    def __init__(self, job: Job, devices: list[str], on_end: Callable[[int], None], stop: "_StopSignals") -> None:
        self._job, self._devices, self._on_end, self._stop = job, devices, on_end, stop
        self._context = multiprocessing.get_context("spawn")
        self._workers: list[_Worker] = []
        self._setup_error: SetupError | None = None

    def run(self, shards: list[int]) -> None:
        queue = list(reversed(shards))
        try:
            self._workers = [self._start(device) for device in self._devices]
            while not self._finished(queue):
                self._feed(queue)
                self._collect(queue)
        finally:
            self._shut_down()
        if self._setup_error is not None:
            raise self._setup_error
        if self._stop.received is not None:
            raise SignalStopError(self._stop.received)

    def _finished(self, queue: list[int]) -> bool:
        halted = self._stop.received is not None or self._setup_error is not None
        busy = any(worker.shard is not None for worker in self._workers)
        if halted:
            return not busy or self._stop.seconds_since() > GRACE_S or self._stop.count > 1
        return not queue and not busy

    def _feed(self, queue: list[int]) -> None:
        if self._stop.received is not None or self._setup_error is not None:
            return
        for worker in self._workers:
            if worker.shard is None and queue:
                worker.shard = queue.pop()
                with contextlib.suppress(BrokenPipeError):  # it just died; _collect will see that
                    worker.pipe.send(worker.shard)

    def _collect(self, queue: list[int]) -> None:
        waiting: list[Any] = [worker.pipe for worker in self._workers]
        waiting += [worker.process.sentinel for worker in self._workers]
        multiprocessing.connection.wait(waiting, timeout=_POLL_S)
        for index, worker in enumerate(self._workers):
            try:
                if worker.pipe.poll():
                    self._receive(worker, worker.pipe.recv())
                    continue
            except (EOFError, ConnectionResetError):
                pass
            if not worker.process.is_alive():
                self._bury(worker)
                if queue:
                    self._workers[index] = self._start(worker.device)
                else:
                    worker.shard = None
        self._workers = [worker for worker in self._workers if worker.process.is_alive() or worker.shard is not None]
        if not self._workers and queue:
            self._workers.append(self._start(self._devices[0]))

    def _receive(self, worker: _Worker, message: Any) -> None:
        if isinstance(message, PseudolabelError):
            self._setup_error = SetupError(message)
            worker.shard = None
            return
        assert message == worker.shard, f"expected shard {worker.shard}, heard of {message}"
        worker.shard = None
        self._on_end(message)

    def _bury(self, worker: _Worker) -> None:
        worker.process.join()
        if worker.shard is None:
            return
        write_death(self._job, worker.shard, worker.process.exitcode)
        self._on_end(worker.shard)
        worker.shard = None

    def _start(self, device: str) -> _Worker:
        ours, theirs = self._context.Pipe()
        job = Job(self._job.run_root, self._job.stage, self._job.config, device, self._job.weights)
        with _single_threaded_children():
            process = self._context.Process(
                target=_serve, args=(job.to_json(), theirs, os.getpid()), name=f"pseudolabel-{self._job.stage}"
            )
            process.start()
        theirs.close()
        return _Worker(process, ours, device)

    def _shut_down(self) -> None:
        for worker in self._workers:
            worker.pipe.close()  # an idle worker reads the end of its pipe and leaves
            if worker.shard is not None:
                worker.process.kill()
        for worker in self._workers:
            worker.process.join(timeout=5)
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()
        sweep_temporaries(self._job.run.table(self._job.make_stage().writes))


class _StopSignals:
    """While active, notes signals that ask to stop instead of dying of them."""

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self.count = 0
        self._since = 0.0
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "_StopSignals":
        with contextlib.suppress(ValueError):  # not the main thread: whoever owns it handles signals
            self._previous = {number: signal.signal(number, self._note) for number in _STOP_SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def seconds_since(self) -> float:
        return time.monotonic() - self._since if self.received else 0.0

    def _note(self, number: int, _: object) -> None:
        self.count += 1
        if self.received is None:
            self.received = signal.Signals(number)
            self._since = time.monotonic()


@contextlib.contextmanager
def _single_threaded_children() -> Iterator[None]:
    """One thread per worker: sums keep their order whatever the number of workers, and cores are not fought for."""
    before = {name: os.environ.get(name) for name in _THREAD_VARIABLES}
    os.environ.update(dict.fromkeys(_THREAD_VARIABLES, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _serve(job_json: str, pipe: Connection, parent: int) -> None:
    """The body of a worker process: shards in by the pipe, the same index back when the attempt ended."""
    for number in _STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)  # the driver decides when to stop
    _die_with_parent(parent)
    try:
        worker = ShardWorker(Job.from_json(job_json))
        while True:
            shard = pipe.recv()
            worker.attempt(shard)
            pipe.send(shard)
    except EOFError:
        return
    except SetupError as error:
        pipe.send(error.cause)
    except PseudolabelError as error:
        pipe.send(error)
    except MemoryError:
        pipe.send(MachineError("out of memory in a worker; use fewer --workers"))


def _die_with_parent(parent: int) -> None:
    """No orphans: on Linux the kernel kills this process when the driver is killed."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)
