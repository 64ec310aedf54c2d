"""`doctor`: what of this machine works, as far as pseudolabel will need it."""

import os
import platform
import shutil
import tempfile
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from pseudolabel import __version__
from pseudolabel.errors import PseudolabelError
from pseudolabel.pipelines.doctor.checks import Check, fail, ok, warn

_DRIVER = Path("/proc/driver/nvidia/version")
_SHARED_MEMORY = Path("/dev/shm")
_LEAST_SHARED_MB, _LEAST_FREE_GB, _LEAST_FILES, _LEAST_MEMORY_GB = 512, 5, 1024, 4
EXTRAS = {
    "ray": ("ray", "--engine ray"),
    "tifffile": ("microscopy", "OME's and ImageJ's TIFF"),
    "transformers": ("sam", "infer-prompted --model sam:DIR"),
}
_FATAL, _WARNING = 4, 2  # of onnxruntime's log; the second is its default
_BACKBONES = {"train-teacher": "mobilenet_v2", "train-student": "resnet50"}  # their defaults


def machine_checks() -> Iterator[Check]:
    """Python, torch, GPUs, onnxruntime, memory, disk for temporary files, extras, schedulers, weights."""
    yield ok("pseudolabel", f"{__version__} on Python {platform.python_version()}, {platform.platform(terse=True)}")
    yield from _torch()
    yield from _providers()
    yield _processors()
    yield from _memory()
    yield _open_files()
    yield _temporary_files()
    yield _numba_cache()
    yield from (_extra(module, *what) for module, what in EXTRAS.items())
    yield ok("slurm", shutil.which("sbatch") or "no sbatch here; --engine slurm needs it on the machine that submits")
    yield from (_hub_weights(command, backbone) for command, backbone in _BACKBONES.items())


def _torch() -> Iterator[Check]:
    import torch

    yield ok("torch", f"{torch.__version__}, CUDA {torch.version.cuda or 'not built in'}")
    if torch.cuda.is_available():
        yield from (_gpu(number) for number in range(torch.cuda.device_count()))
    elif _DRIVER.exists():
        yield warn(
            "GPU", "a driver is there, and torch cannot use it", "install a torch that is built for its CUDA version"
        )
    else:
        yield ok("GPU", "none; trainings take hours here, the other stages run on the CPU")


def _gpu(number: int) -> Check:
    import torch

    free, total = torch.cuda.mem_get_info(number)
    found = f"{torch.cuda.get_device_name(number)}, {free / 1e9:.1f} of {total / 1e9:.1f} GB free"
    if free < total / 2:
        return warn(f"GPU {number}", found, "somebody else works on it: choose another with --device cuda:N")
    return ok(f"GPU {number}", found)


def _providers() -> Iterator[Check]:
    """Every provider that onnxruntime lists, after a model of one addition has run on it."""
    import onnxruntime

    for name in onnxruntime.get_available_providers():
        if name == "TensorrtExecutionProvider":
            continue  # pseudolabel never asks for it
        opened = _opens(name)
        if opened:
            yield ok("onnxruntime", f"{onnxruntime.__version__}, {name} works")
        elif _DRIVER.exists():
            yield warn("onnxruntime", f"{name} is listed and does not open", "its CUDA and cuDNN libraries are missing")
        else:
            yield ok("onnxruntime", f"{name} is built in; there is no GPU to use it")


def _opens(provider: str) -> bool:
    import numpy as np
    import onnxruntime
    from onnx import TensorProto, helper

    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Add", ["x", "x"], ["y"])], "add", value[:1], value[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnxruntime.set_default_logger_severity(_FATAL)  # a provider that does not open is told of in our words
    try:
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=[provider])
        (two,) = session.run(None, {"x": np.ones(1, np.float32)})
    finally:
        onnxruntime.set_default_logger_severity(_WARNING)
    return bool(session.get_providers()[0] == provider and two[0] == 2)


def _processors() -> Check:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    found = f"{usable} usable, load {load:.1f}"
    if load > 2 * usable:
        return warn("processors", found, "others work here: expect everything to take longer")
    return ok("processors", found)


def _memory() -> Iterator[Check]:
    information = Path("/proc/meminfo")
    if information.exists():
        lines = (line.partition(":") for line in information.read_text().splitlines())
        kilobytes = {name: int(rest.split()[0]) for name, _, rest in lines}
        free, total = (kilobytes[name] / 1e6 for name in ("MemAvailable", "MemTotal"))
        found = f"{free:.1f} of {total:.1f} GB free"
        low = free < _LEAST_MEMORY_GB
        yield warn("memory", found, "use fewer --workers, or smaller --image-px") if low else ok("memory", found)
    if _SHARED_MEMORY.is_dir():
        free_mb = shutil.disk_usage(_SHARED_MEMORY).free / 1e6
        if free_mb < _LEAST_SHARED_MB:
            todo = "trainings with several workers need more: docker run --shm-size 2g"
            yield warn("shared memory", f"{free_mb:.0f} MB free", todo)
        else:
            yield ok("shared memory", f"{free_mb:.0f} MB free")


def _open_files() -> Check:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < _LEAST_FILES:
        return warn("open files", f"{soft} allowed", f"ulimit -n {min(hard, 65536) if hard > 0 else 65536}")
    return ok("open files", f"{soft} allowed")


def _temporary_files() -> Check:
    folder = Path(tempfile.gettempdir())
    return disk(folder, "temporary files", _LEAST_FREE_GB / 5)


def disk(folder: Path, name: str, least_gb: float) -> Check:
    """Whether a folder can be written and its disk has room."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"\0" * 4096)
    except OSError as error:
        return fail(name, f"{folder}: cannot be written ({error.strerror})", "free some space, or mend its permissions")
    free_gb = shutil.disk_usage(folder).free / 1e9
    found = f"{folder}: {free_gb:.1f} GB free"
    return (
        warn(name, found, f"{least_gb:.1f} GB may be needed: free some space")
        if free_gb < least_gb
        else ok(name, found)
    )


def _numba_cache() -> Check:
    from pseudolabel import bilinear

    asked = os.environ.get("NUMBA_CACHE_DIR")
    folder = Path(asked) if asked else Path(bilinear.__file__).parent
    if os.access(folder, os.W_OK):
        return ok("numba's cache", f"{folder}: can be written")
    found = f"{folder}: cannot be written, so that every process compiles anew"
    return warn("numba's cache", found, "export NUMBA_CACHE_DIR=FOLDER")


def _extra(module: str, extra: str, purpose: str) -> Check:
    if find_spec(module) is None:
        return ok(f"extra {extra}", f"not installed; for {purpose}:  pip install 'pseudolabel[{extra}]'")
    try:
        return ok(f"extra {extra}", f"{module} {version(module)}")
    except PackageNotFoundError:
        return ok(f"extra {extra}", f"{module} of an unknown version")


def _hub_weights(command: str, backbone: str) -> Check:
    """Whether a training at its defaults finds its backbone's weights without the network."""
    from pseudolabel.encoders.resolve import find_on_hub

    try:
        return ok(f"{command}", f"weights of {backbone}: {find_on_hub(backbone, fetch=False)}")
    except PseudolabelError:
        found = f"the weights of {backbone} are not on this machine"
        return warn(command, found, "--backbone-weights FILE, hub-download, or none to start from chance")
