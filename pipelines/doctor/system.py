"""What the operating system says of this machine, in microseconds; imports nothing heavy."""

import ctypes
import os
import re
import shutil
import tempfile
from pathlib import Path

from pseudolabel.pipelines.doctor.checks import Check, fail, ok, warn

NVIDIA_DRIVER = Path("/proc/driver/nvidia/version")
_VERSION = re.compile(r"\b\d{3,}\.\d+(\.\d+)?\b")  # of the driver, such as 570.86.15
_MEMORY = Path("/proc/meminfo")
_SHARED_MEMORY = Path("/dev/shm")
_LEAST_SHARED_MB, _LEAST_FILES = 512, 1024


def cuda_driver() -> str | None:
    """The version of NVIDIA's driver and the newest CUDA that it serves; None where there is none."""
    if not NVIDIA_DRIVER.exists():
        return None
    found = _VERSION.search(NVIDIA_DRIVER.read_text(encoding="utf-8", errors="replace"))
    number = ctypes.c_int(0)
    try:
        answer = ctypes.CDLL("libcuda.so.1").cuDriverGetVersion(ctypes.byref(number))
    except OSError:
        return f"{found[0] if found else 'of unknown version'}, without its library libcuda.so.1"
    serves = f"CUDA {number.value // 1000}.{number.value % 1000 // 10}" if answer == 0 else "no CUDA that it tells"
    return f"{found[0] if found else 'of unknown version'}, serves {serves}"


def memory_gb() -> tuple[float, float] | None:
    """Free memory and all of it; None where the system does not say."""
    if not _MEMORY.exists():
        return None
    lines = (line.partition(":") for line in _MEMORY.read_text(encoding="ascii").splitlines())
    kilobytes = {name: int(rest.split()[0]) for name, _, rest in lines}
    return kilobytes["MemAvailable"] / 1e6, kilobytes["MemTotal"] / 1e6


def shared_memory() -> Check | None:
    """Whether workers of a training can hand over their samples; None where the system has no such place."""
    if not _SHARED_MEMORY.is_dir():
        return None
    free_mb = shutil.disk_usage(_SHARED_MEMORY).free / 1e6
    if free_mb < _LEAST_SHARED_MB:
        todo = "trainings with several workers need more: docker run --shm-size 2g"
        return warn("shared memory", f"{free_mb:.0f} MB free", todo)
    return ok("shared memory", f"{free_mb:.0f} MB free")


def open_files() -> Check:
    """How many files a process may have open."""
    import resource  # not on every system

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < _LEAST_FILES:
        return warn("open files", f"{soft} allowed", f"ulimit -n {min(hard, 65536) if hard > 0 else 65536}")
    return ok("open files", f"{soft} allowed")


def disk(folder: Path, name: str, least_gb: float) -> Check:
    """Whether a folder can be written and its disk has room."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"\0" * 4096)
    except OSError as error:
        return fail(name, f"{folder}: cannot be written ({error.strerror})", "free some space, or mend its permissions")
    return room(folder, name, least_gb)


def room(folder: Path, name: str, least_gb: float) -> Check:
    """Whether the disk of a folder, or of the nearest one above it that is there, has room."""
    place = next(one for one in (folder, *folder.absolute().parents) if one.is_dir())
    free_gb = shutil.disk_usage(place).free / 1e9
    found = f"{place}: {free_gb:.1f} GB free"
    if free_gb < least_gb:
        return warn(name, found, f"{least_gb:.1f} GB may be needed: free some space")
    return ok(name, found)


def load() -> float:
    """How many processes wanted a processor in the last minute, on average."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
