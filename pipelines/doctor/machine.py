"""`doctor`: what of this machine works, as far as pseudolabel will need it."""

import os
import platform
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from pseudolabel import __version__
from pseudolabel.errors import MachineError, PseudolabelError
from pseudolabel.optional import EXTRAS, absence_named, absent_module, install_text
from pseudolabel.pipelines.doctor.checks import Check, ok, warn
from pseudolabel.pipelines.doctor.system import NVIDIA_DRIVER, disk, load, memory_gb, open_files, shared_memory
from pseudolabel.pipelines.work.device import available_cores

_LEAST_FREE_GB, _LEAST_MEMORY_GB = 1, 4
_FATAL, _WARNING = 4, 2  # of onnxruntime's log; the second is its default
_BACKBONES = {"train-teacher": "mobilenet_v2", "train-student": "resnet50"}  # their defaults


def machine_checks() -> Iterator[Check]:
    """Python, torch, GPUs, onnxruntime, memory, disk for temporary files, extras, schedulers, weights."""
    yield ok("pseudolabel", f"{__version__} on Python {platform.python_version()}, {platform.platform(terse=True)}")
    yield from _torch()
    yield _torchvision()
    yield from _providers()
    yield _processors()
    yield from _memory()
    yield open_files()
    yield _temporary_files()
    yield _numba_cache()
    yield from (_extra(extra) for extra in EXTRAS)
    yield ok("slurm", shutil.which("sbatch") or "no sbatch here; --engine slurm needs it on the machine that submits")
    if absent_module("train") is None:
        yield from (_hub_weights(command, backbone) for command, backbone in _BACKBONES.items())


def _torch() -> Iterator[Check]:
    import torch

    yield ok("torch", f"{torch.__version__}, CUDA {torch.version.cuda or 'not built in'}")
    if torch.cuda.is_available():
        yield from (_gpu(number) for number in range(torch.cuda.device_count()))
    elif NVIDIA_DRIVER.exists():
        yield warn(
            "GPU", "a driver is there, and torch cannot use it", "install a torch that is built for its CUDA version"
        )
    else:
        yield ok("GPU", "none; trainings take hours here, the other stages run on the CPU")


def _torchvision() -> Check:
    """Whether its operators load: those of a torchvision that was built for another torch do not."""
    try:
        with absence_named():
            import torchvision
    except MachineError as error:
        found, _, todo = str(error).partition(": ")
        return warn("torchvision", f"{found}; trainings need it", todo)
    return ok("torchvision", torchvision.__version__)


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
        elif NVIDIA_DRIVER.exists():
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
    usable, waiting = available_cores(), load()
    found = f"{usable} usable, load {waiting:.1f}"
    if waiting > 2 * usable:
        return warn("processors", found, "others work here: expect everything to take longer")
    return ok("processors", found)


def _memory() -> Iterator[Check]:
    free_and_all = memory_gb()
    if free_and_all is not None:
        free, everything = free_and_all
        found = f"{free:.1f} of {everything:.1f} GB free"
        low = free < _LEAST_MEMORY_GB
        yield warn("memory", found, "use fewer --workers, or smaller --image-px") if low else ok("memory", found)
    shared = shared_memory()
    if shared is not None:
        yield shared


def _temporary_files() -> Check:
    return disk(Path(tempfile.gettempdir()), "temporary files", _LEAST_FREE_GB)


def _numba_cache() -> Check:
    from pseudolabel import bilinear

    asked = os.environ.get("NUMBA_CACHE_DIR")
    folder = Path(asked) if asked else Path(bilinear.__file__).parent
    if os.access(folder, os.W_OK):
        return ok("numba's cache", f"{folder}: can be written")
    found = f"{folder}: cannot be written, so that every process compiles anew"
    return warn("numba's cache", found, "export NUMBA_CACHE_DIR=FOLDER")


def _extra(extra: str) -> Check:
    purpose, modules = EXTRAS[extra]
    absent = absent_module(extra)
    if absent is not None:
        return ok(f"extra {extra}", f"{absent} is not installed; for {purpose}:  {install_text(extra)}")
    return ok(f"extra {extra}", f"{', '.join(modules)}, for {purpose}")


def _hub_weights(command: str, backbone: str) -> Check:
    """Whether a training at its defaults finds its backbone's weights without the network."""
    from pseudolabel.encoders.resolve import find_on_hub

    try:
        return ok(f"{command}", f"weights of {backbone}: {find_on_hub(backbone, fetch=False)}")
    except PseudolabelError:
        found = f"the weights of {backbone} are not on this machine"
        return warn(command, found, "--backbone-weights FILE, hub-download, or none to start from chance")
