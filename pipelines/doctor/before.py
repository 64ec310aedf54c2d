"""What is looked at before every command: in some milliseconds, from what the system says; nothing is imported for it.

What would certainly fail is refused, with what to type. What may go badly is said on the log.
"""

import logging
import os
from importlib.metadata import PackageNotFoundError, version

from pseudolabel.config import Config
from pseudolabel.errors import InputError
from pseudolabel.optional import need_extra
from pseudolabel.pipelines.doctor.checks import Check, warn
from pseudolabel.pipelines.doctor.system import NVIDIA_DRIVER, memory_gb, open_files, room, shared_memory
from pseudolabel.pipelines.forecast import Forecast, Size, forecast
from pseudolabel.pipelines.graph import find_command
from pseudolabel.pipelines.options.base import StageConfig
from pseudolabel.pipelines.planning.plan import read_plan
from pseudolabel.pipelines.run.paths import RunPaths
from pseudolabel.pipelines.work.device import available_cores
from pseudolabel.training.config import TrainConfig

_LOG = logging.getLogger(__name__)
_LEAST_FREE_GB = 1.0


def need_extras(name: str, config: Config | None = None, engine: str = "") -> None:
    """Pass where the extras of a command, of its options and of its engine are installed.

    Raises:
        MachineError: one is not; the message has what to type.
    """
    command = find_command(name)
    wanted = {command.extra: name} if command is not None and command.extra else {}
    wanted |= dict.fromkeys(config.extras() if config else (), f"{name} with these options")
    wanted |= {"ray": "--engine ray"} if engine == "ray" else {}
    for extra, what in wanted.items():
        need_extra(extra, what)


def tell_troubles(run: RunPaths, name: str, config: Config) -> None:
    """Say on the log what of this machine does not suit a command that is about to work here."""
    if any(int(os.environ.get(variable, 0)) for variable in ("RANK", "SLURM_PROCID")):
        return  # of several that were started together the first one speaks
    for check in troubles(run, name, config):
        _LOG.warning("%s: %s: %s: %s", name, check.name, check.found, check.todo)


def troubles(run: RunPaths, name: str, config: Config) -> list[Check]:
    """Disk, GPU, processors, memory, open files: the checks that found something."""
    taken = forecast(name, config, _size(run))
    checks = [_disk(run, taken), _gpu(config), _threads(config), _memory(taken, config), open_files()]
    checks += [shared_memory()] if getattr(config, "loader_workers", 0) else []
    return [check for check in checks if check is not None and check.state != "ok"]


def _size(run: RunPaths) -> Size:
    try:
        plan = read_plan(run)
    except InputError:  # whoever needs the plan says so
        return Size(0, 0, 1)
    return Size(plan.n_images, plan.n_objects, plan.num_shards)


def _disk(run: RunPaths, taken: Forecast | None) -> Check:
    return room(run.root, "disk", max(_LEAST_FREE_GB, taken.disk_bytes / 1e9 if taken else 0.0))


def _gpu(config: Config) -> Check | None:
    """A GPU that is there and that no library here can use."""
    if not _may_use_gpu(config):
        return None
    torch = _version("torch") or ""
    if torch.endswith("+cpu"):
        todo = "install a torch that is built for CUDA, or say --device cpu"
        return warn("GPU", f"a driver is there, and torch {torch} cannot use it", todo)
    if str(getattr(config, "model", "")).endswith(".onnx") and _version("onnxruntime-gpu") is None:
        return warn("GPU", "onnxruntime is here without CUDA", "pip install onnxruntime-gpu, or say --device cpu")
    return None


def _threads(config: Config) -> Check | None:
    cores, workers, threads = available_cores(), _workers(config), max(1, getattr(config, "threads", 1))
    if threads == 1 or workers * threads <= cores:
        return None
    found = f"{workers} x {threads} threads on {cores} processors"
    return warn("processors", found, "lower --workers or --threads: they would wait for each other")


def _memory(taken: Forecast | None, config: Config) -> Check | None:
    free_and_all, workers = memory_gb(), _workers(config)
    training = isinstance(config, TrainConfig)
    if taken is None or free_and_all is None or (training and _may_use_gpu(config)):
        return None
    free_gb, wanted_gb = free_and_all[0], workers * taken.worker_mb / 1e3
    if wanted_gb <= free_gb:
        return None
    found = f"{free_gb:.1f} GB free, {workers} {'processes' if training else 'workers'} may take {wanted_gb:.1f}"
    if training:
        return warn("memory", found, "lower --batch-size or the size of its pictures, or end other programs")
    fit = max(1, int(free_gb * 1e3 // taken.worker_mb))
    return warn("memory", found, f"--workers {fit}" if fit < workers else "end other programs")


def _workers(config: Config) -> int:
    """Processes that will work here: as many as were asked for, else one per core, or one where there may be a GPU."""
    if isinstance(config, TrainConfig):
        return config.devices
    asked = config.workers if isinstance(config, StageConfig) else 1
    return asked or (1 if _may_use_gpu(config) else available_cores())


def _may_use_gpu(config: Config) -> bool:
    return getattr(config, "device", "cpu") != "cpu" and NVIDIA_DRIVER.exists()


def _version(library: str) -> str | None:
    try:
        return version(library)
    except PackageNotFoundError:
        return None
