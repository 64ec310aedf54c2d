"""What `--version` says: found without importing anything that would take time."""

import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from pseudolabel import __version__

_DRIVER = Path("/proc/driver/nvidia/gpus")  # the kernel's own list; asks no library
_LIBRARIES = ("torch", "onnxruntime", "onnxruntime-gpu")


def versions_text() -> str:
    """Our version in a line of its own, then Python's, the libraries' that do the work, and the GPUs."""
    libraries = [f"{name} {found}" for name in _LIBRARIES if (found := _version(name))]
    return "\n".join(
        [
            f"pseudolabel {__version__}",
            f"Python {platform.python_version()}, {', '.join(libraries)}",
            f"NVIDIA GPUs: {', '.join(gpus(_DRIVER)) or 'none'}",
        ]
    )


def gpus(driver: Path) -> list[str]:
    """The models of the GPUs that the driver of this machine lists."""
    texts = (path.read_text(encoding="utf-8") for path in sorted(driver.glob("*/information")))
    return [line.partition(":")[2].strip() for text in texts for line in text.splitlines() if line.startswith("Model")]


def _version(library: str) -> str | None:
    try:
        return version(library)
    except PackageNotFoundError:
        return None
