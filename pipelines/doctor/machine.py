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
from pseudolabel.pipelines.doctor.checks import Check, fail, ok, warn
from pseudolabel.pipelines.doctor.system import (
    NVIDIA_DRIVER,
    cuda_driver,
    disk,
    load,
    memory_gb,
    open_files,
    shared_memory,
)
from pseudolabel.pipelines.engines.slurm import SLURM_COMMANDS
from pseudolabel.pipelines.graph import TRAINERS
from pseudolabel.pipelines.run.paths import RunPaths
from pseudolabel.pipelines.work.device import available_cores

_LEAST_FREE_GB, _LEAST_MEMORY_GB = 1, 4
_FATAL, _WARNING = 4, 2  # of onnxruntime's log; the second is its default


def machine_checks(run: RunPaths | None = None) -> Iterator[Check]:
    """Python, torch, GPUs, onnxruntime, memory, disk for temporary files, extras, schedulers, weights.

    Args:
        run: whose segmenter may lend its encoder to trainings.
    """
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
    yield _slurm()
    if absent_module("train") is None:
        yield _hub_cache()
        yield from (_encoder(command, run) for command in TRAINERS)


def _torch() -> Iterator[Check]:
    import torch

    yield ok("torch", f"{torch.__version__}, CUDA {torch.version.cuda or 'not built in'}")
    driver = cuda_driver()
    if driver is not None:
        yield ok("CUDA driver", driver)
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
    """Where numba keeps what it has compiled; without a place for that, what needs it cannot even be imported."""
    try:
        from pseudolabel import bilinear
    except RuntimeError as error:
        return fail("numba's cache", str(error), "export NUMBA_CACHE_DIR=FOLDER, one that can be written")
    return ok("numba's cache", f"{bilinear.read.stats.cache_path}: can be written")


def _slurm() -> Check:
    absent = [command for command in SLURM_COMMANDS if shutil.which(command) is None]
    if not absent:
        return ok("slurm", ", ".join(SLURM_COMMANDS))
    found = f"no {', '.join(absent)} here; --engine slurm needs {'them' if len(absent) > 1 else 'it'}"
    if len(absent) == len(SLURM_COMMANDS):
        return ok("slurm", f"{found} on the machine that submits")
    return warn("slurm", found, "add the folder of Slurm's commands to PATH")


def _extra(extra: str) -> Check:
    purpose, modules = EXTRAS[extra]
    absent = absent_module(extra)
    if absent is not None:
        return ok(f"extra {extra}", f"{absent} is not installed; for {purpose}:  {install_text(extra)}")
    return ok(f"extra {extra}", f"{', '.join(modules)}, for {purpose}")


def _hub_cache() -> Check:
    """Where the hub's weights are kept, and whether its client may fetch any."""
    from huggingface_hub import constants

    folder = Path(constants.HF_HUB_CACHE)
    offline = "; HF_HUB_OFFLINE: nothing can be fetched" if constants.HF_HUB_OFFLINE else ""
    there = next(one for one in (folder, *folder.absolute().parents) if one.is_dir())
    if os.access(there, os.W_OK):
        return ok("hub's cache", f"{folder}: can be written{offline}")
    return warn("hub's cache", f"{folder}: cannot be written{offline}", "to fetch weights, export HF_HOME=FOLDER")


def _encoder(command: str, run: RunPaths | None) -> Check:
    """Whether a training at its defaults finds its encoder's weights without the network."""
    from pseudolabel.encoders.resolve import find_on_hub
    from pseudolabel.pipelines.trainers.segmenter_encoder import lent_weights

    backbone = str(TRAINERS[command].config_class({}).model_fields["backbone"].default)
    try:
        lent = lent_weights(run, backbone)[0] if run else None
        return ok(command, f"weights of {backbone}: {lent or find_on_hub(backbone, fetch=False)}")
    except PseudolabelError:
        found = f"the weights of {backbone} are not on this machine, and nothing is fetched unasked"
        chance = "" if command == "train-siseg" else ", or none to start from chance"  # its encoder is not trained
        return warn(command, found, f"--backbone-weights FILE or hub-download{chance}")
