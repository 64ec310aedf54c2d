"""One worker process: a job and its shards in by its pipe, a shard's index back when the attempt ended."""

import contextlib
import ctypes
import gc
import multiprocessing
import os
import signal
import sys
from collections.abc import Iterator
from dataclasses import replace
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from types import ModuleType
from typing import Any

from pseudolabel import crash_note
from pseudolabel.errors import MachineError, PseudolabelError
from pseudolabel.pipelines.engines.stop import STOP_SIGNALS
from pseudolabel.pipelines.graph import STAGES, load_stage
from pseudolabel.pipelines.work import tally
from pseudolabel.pipelines.work.attempts import CRASHES, deadly, note_crash, write_death
from pseudolabel.pipelines.work.device import resolve_device
from pseudolabel.pipelines.work.job import Job, SetupError, ShardWorker, library_versions

CRASHES_OF_A_SHARD = 40
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
_PR_SET_PDEATHSIG = 1


class WorkerProcess:
    """A spawned process that holds a `ShardWorker`, seen from its supervisor; one job after the other."""

    def __init__(self, job: Job, device: str) -> None:
        context = multiprocessing.get_context("spawn")
        self._note = context.RawArray(ctypes.c_ubyte, crash_note.NOTE_BYTES)
        self._images = context.RawValue(ctypes.c_uint64, 0)
        self._images_told = 0
        self.pipe, theirs = context.Pipe()
        arguments = (theirs, self._note, self._images, os.getpid())
        self.process: SpawnProcess = context.Process(target=_serve, args=arguments, name="pseudolabel-worker")
        with _single_threaded_children(), _signals_held_back(), _without_main():
            self.process.start()
        theirs.close()
        self.employ(job, device)

    def employ(self, job: Job, device: str) -> None:
        """From now on its shards are those of this job; what it held for the one before is let go."""
        self._job, self.device = job, device
        self.shard: int | None = None
        self.refused = False  # it cannot be set up
        with contextlib.suppress(BrokenPipeError):
            self.pipe.send(replace(job, device=device).to_json())

    def give(self, shard: int) -> None:
        """Hand a shard over; a process that just died is noticed later."""
        self.shard = shard
        with contextlib.suppress(BrokenPipeError):
            self.pipe.send((shard, deadly(self._job.run, self._job.stage, shard, library_versions())))

    def images(self) -> int:
        """How many images it was through with since this was last asked."""
        done = self._images.value
        before, self._images_told = self._images_told, done
        return int(done - before)

    def heard(self) -> Any:
        """What the process said, None where it said nothing (it may be dead)."""
        with contextlib.suppress(EOFError, ConnectionResetError):
            if self.pipe.poll():
                return self.pipe.recv()
        return None

    def bury(self) -> bool:
        """After the process died: whether its shard is worth trying again at once, the cause being one image."""
        self.process.join()
        if self.shard is None:
            return False
        code = self.process.exitcode
        digest = crash_note.noted(self._note)
        write_death(self._job.run, self._job.stage, self.shard, code)
        if digest is None or code is None or -code not in CRASHES:
            return False
        crashes = note_crash(self._job.run, self._job.stage, self.shard, library_versions(), digest)
        return crashes <= CRASHES_OF_A_SHARD

    def leave(self) -> None:
        """Ask an idle process to end; one at work is killed."""
        self.pipe.close()
        if self.shard is not None:
            self.process.kill()

    def wait(self) -> None:
        """Until the process is gone."""
        self.process.join(timeout=5)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()


@contextlib.contextmanager
def _without_main() -> Iterator[None]:
    """A spawned process first imports the caller's main module: a script that drives a run would begin again in each of
    its workers, which need nothing of it.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


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


@contextlib.contextmanager
def _signals_held_back() -> Iterator[None]:
    """A child starts with them held back, so that Ctrl-C does not end it before it can say that it ignores it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _serve(pipe: Connection, note: Any, images: Any, parent: int) -> None:
    """The body of a worker process."""
    tally.share(images)
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)  # the driver decides when to stop
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
    _die_with_parent(parent)
    try:
        job_json: str = pipe.recv()
        while True:
            job_json = _work_on_shards(job_json, pipe, note)
            _tidy_up()
    except EOFError:
        return
    except SetupError as error:
        pipe.send(error.cause)
    except PseudolabelError as error:
        pipe.send(error)
    except MemoryError:
        pipe.send(MachineError("out of memory in a worker; use fewer --workers"))


def _work_on_shards(job_json: str, pipe: Connection, note: Any) -> str:
    """Attempts at the shards of a job, until there is another one, which is returned."""
    job = Job.from_json(job_json)
    STAGES.trust(job.stage)  # of the driver, not of a file
    uses_gpu = load_stage(job.stage).resources.gpu
    worker = ShardWorker(replace(job, device=resolve_device(job.device, uses_gpu)))
    while True:
        message = pipe.recv()
        if isinstance(message, str):
            return message
        shard, deadly_images = message
        crash_note.supervise(note, deadly_images)
        worker.attempt(shard)
        pipe.send(shard)


def _tidy_up() -> None:
    """As a new process would be, but for what is loaded: no model in memory, one thread."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(1)
        torch.cuda.empty_cache()


def _die_with_parent(parent: int) -> None:
    """No orphans: on Linux the kernel kills this process when the driver is killed."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)
