"""Shards as tasks of Ray Core, one task per shard.

A Ray worker keeps a supervised process with the loaded model between its tasks, so that a decoder that crashes takes
neither the Ray worker nor the knowledge of the guilty image with it. Ray tries a task again when its worker or its
node dies; whether a shard is done, its own file says.
"""

import atexit
import os
import signal
import socket
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from pseudolabel import __version__
from pseudolabel.errors import ConfigError, MachineError, PseudolabelError, SignalStopError
from pseudolabel.optional import absence_named
from pseudolabel.pipelines.engines.base import EngineOptions
from pseudolabel.pipelines.engines.crew import GRACE_S, Crew
from pseudolabel.pipelines.engines.stop import StopSignals
from pseudolabel.pipelines.graph import STAGES, load_stage
from pseudolabel.pipelines.work.attempts import WorkerDeathError, write_failure
from pseudolabel.pipelines.work.device import available_cores, resolve_device
from pseudolabel.pipelines.work.job import Job, SetupError, library_versions

RETRIES_OF_DEATHS = 3
_POLL_S = 0.5
_LOCAL_STORE_BYTES = 80 << 20  # the smallest that Ray takes; tables go through the file system, not through Ray
_PROBE_S = 120.0
# Ray replaces 127.0.0.1 by the machine's outer address and would listen there; Linux has more of the loopback
_LOOPBACK = "127.0.0.2" if sys.platform == "linux" else "127.0.0.1"


class RayEngine:
    """One task per shard on a cluster that runs, or on one that lives as long as this process."""

    elsewhere: ClassVar[bool] = True

    def __init__(self, options: EngineOptions) -> None:
        self._options = options

    def run(self, job: Job, shards: list[int], on_end: Callable[[int], None]) -> None:
        ray = _connected(self._options)
        gpus = _gpus(ray, job)
        _check_nodes(ray, job)
        task = ray.remote(
            num_cpus=load_stage(job.stage).resources.cpus,
            num_gpus=gpus,
            max_calls=0,  # without it a task with a GPU gets a new process, and the model is loaded for every shard
            max_retries=RETRIES_OF_DEATHS,
            retry_exceptions=False,
            scheduling_strategy="SPREAD",
        )(attempt_shard)
        slots = self._options.workers or max(1, int(ray.cluster_resources().get("GPU" if gpus else "CPU", 1)))
        arguments = (job.to_json(), Surroundings(os.getcwd(), tuple(filter(None, sys.path)), os.environ.get("HOME")))
        with StopSignals() as stop:
            _Tasks(ray, job, lambda shard: task.remote(*arguments, shard), on_end, stop).run(shards, slots)


class _Tasks:
    def __init__(
        self, ray: Any, job: Job, submit: Callable[[int], Any], on_end: Callable[[int], None], stop: StopSignals
    ) -> None:
        self._ray, self._job, self._submit, self._on_end, self._stop = ray, job, submit, on_end, stop
        self._pending: dict[Any, int] = {}

    def run(self, shards: list[int], slots: int) -> None:
        queue = list(reversed(shards))
        try:
            while (queue and not self._stop.received) or self._pending:
                while queue and len(self._pending) < slots and not self._stop.received:
                    shard = queue.pop()
                    self._pending[self._submit(shard)] = shard
                self._collect()
                if self._stop.seconds_since() > GRACE_S or self._stop.count > 1:
                    break
        finally:
            for reference in self._pending:
                self._ray.cancel(reference, force=True)
        if self._stop.received is not None:
            raise SignalStopError(self._stop.received)

    def _collect(self) -> None:
        ended, _ = self._ray.wait(list(self._pending), num_returns=1, timeout=_POLL_S)
        for reference in ended:
            shard = self._pending.pop(reference)
            self._outcome(reference, shard)
            self._on_end(shard)

    def _outcome(self, reference: Any, shard: int) -> None:
        try:
            cause = self._ray.get(reference)
        except self._ray.exceptions.TaskCancelledError:
            return
        except (self._ray.exceptions.RayTaskError, self._ray.exceptions.RaySystemError):
            raise  # our bug, or one of Ray: with its traceback
        except self._ray.exceptions.RayError as error:  # the worker or its node died more often than it may
            text = f"{type(error).__name__}: {str(error).strip().splitlines()[0][:200]}"
            write_failure(self._job.run, self._job.stage, shard, WorkerDeathError(text))
            return
        if cause is not None:
            raise SetupError(cause)


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Where the driver stands: relative paths in a config start there, and there its modules are found."""

    folder: str
    path: tuple[str, ...]
    home: str | None

    def enter(self) -> None:
        if Path(self.folder).is_dir():
            os.chdir(self.folder)
        if self.home is not None:
            os.environ["HOME"] = self.home
        sys.path.extend(entry for entry in self.path if entry not in sys.path)


def attempt_shard(job_json: str, surroundings: Surroundings, shard: int) -> PseudolabelError | None:
    """One attempt at a shard, in the process that this Ray worker keeps; what the set-up said where it failed."""
    surroundings.enter()
    crew = _crew(job_json)
    try:
        crew.run([shard], lambda _: None)
    except SetupError as error:
        _dismiss()
        return error.cause
    return None


_kept: tuple[str, Crew] | None = None


def _crew(job_json: str) -> Crew:
    """The crew of one that works on this job, kept from task to task; another job's makes room."""
    global _kept
    if _kept is None or _kept[0] != job_json:
        _dismiss()
        job = Job.from_json(job_json)
        STAGES.trust(job.stage)  # of the driver, not of a file
        device = resolve_device(job.device, load_stage(job.stage).resources.gpu)
        _kept = (job_json, Crew(job, [device], StopSignals()))
    return _kept[1]


@atexit.register
def _dismiss() -> None:
    global _kept
    if _kept is not None:
        _kept[1].close()
    _kept = None


def _connected(options: EngineOptions) -> Any:
    """The module `ray`, connected; the connection lasts for all stages of this process."""
    with absence_named():
        import ray
    if ray.is_initialized():
        return ray
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    handler = signal.getsignal(signal.SIGTERM)
    try:
        _start(ray, options)
    except (ConnectionError, ValueError, RuntimeError, ray.exceptions.RayError) as error:
        raise MachineError(f"--ray-address {options.ray_address}: {_first_line(error)}") from None
    finally:
        signal.signal(signal.SIGTERM, handler)  # Ray's own would end the program with code 15
    return ray


def _start(ray: Any, options: EngineOptions) -> None:
    common: dict[str, Any] = {"log_to_driver": False, "logging_level": "WARNING"}
    if options.ray_address != "local":
        ray.init(address=options.ray_address, **common)
        return
    with _home_of_its_own():
        ray.init(
            address="local",
            num_cpus=options.workers or available_cores(),
            include_dashboard=False,
            object_store_memory=_LOCAL_STORE_BYTES,
            _node_ip_address=_LOOPBACK,
            **common,
        )


@contextmanager
def _home_of_its_own() -> Iterator[None]:
    """A home folder for the processes of a Ray that we start; tasks get the user's back.

    Ray's dashboard process asks metadata servers in which cloud it runs, whatever the usage switch says, unless the
    home folder has `ray_bootstrap_config.yaml`. And Ray leaves a token in the home folder.
    """
    folder = tempfile.TemporaryDirectory(prefix="pseudolabel-ray-")
    atexit.register(folder.cleanup)
    Path(folder.name, "ray_bootstrap_config.yaml").write_text("{}\n")
    before = os.environ.get("HOME")
    os.environ["HOME"] = folder.name
    try:
        yield
    finally:
        if before is None:
            del os.environ["HOME"]
        else:
            os.environ["HOME"] = before


def _gpus(ray: Any, job: Job) -> int:
    if not load_stage(job.stage).resources.gpu or job.device == "cpu":
        return 0
    if ":" in job.device:
        raise ConfigError(f"--device {job.device} with --engine ray: Ray says which GPU a task gets; use cuda or auto")
    there = ray.cluster_resources().get("GPU", 0)
    if job.device == "cuda" and not there:
        raise MachineError("--device cuda: this Ray cluster has no GPU")
    return 1 if there else 0


def _check_nodes(ray: Any, job: Job) -> None:
    """Every node sees the run folder and has our versions.

    Raises:
        MachineError: naming the node and what it lacks.
    """
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    probe = job.run.root / f".probe.{uuid.uuid4().hex}"
    probe.write_text(probe.name)
    try:
        nodes = [node["NodeID"] for node in ray.nodes() if node["Alive"]]
        look = ray.remote(num_cpus=0, max_retries=0)(look_around)
        strategies = [NodeAffinitySchedulingStrategy(node, soft=False) for node in nodes]
        references = [look.options(scheduling_strategy=strategy).remote(str(probe)) for strategy in strategies]
        for answer in ray.get(references, timeout=_PROBE_S):
            _check_answer(job, probe.name, answer)
    except ray.exceptions.RayTaskError as error:
        raise MachineError(f"a Ray worker cannot import this pseudolabel: {_first_line(error.cause)}") from None
    except (ray.exceptions.GetTimeoutError, ray.exceptions.RayError) as error:
        raise MachineError(f"a Ray node does not answer: {_first_line(error)}") from None
    finally:
        probe.unlink()


def look_around(probe: str) -> dict[str, Any]:
    """What a node sees of the run folder, and its versions."""
    try:
        content = Path(probe).read_text()
    except OSError:
        content = ""
    return {"host": socket.gethostname(), "content": content, "version": __version__, "versions": library_versions()}


def _check_answer(job: Job, content: str, answer: dict[str, Any]) -> None:
    if answer["content"] != content:
        raise MachineError(
            f"{answer['host']} does not see {job.run.root}: the run folder has to be shared by all nodes"
        )
    ours = library_versions() | {"pseudolabel": __version__}
    theirs = answer["versions"] | {"pseudolabel": answer["version"]}
    different = [
        f"{name} {theirs.get(name)} there, {ours[name]} here" for name in ours if theirs.get(name) != ours[name]
    ]
    if different:
        raise MachineError(f"{answer['host']} has other versions: {', '.join(different)}")


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
