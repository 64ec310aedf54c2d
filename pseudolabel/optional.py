"""Libraries that a plain install does without: each belongs to an extra; its absence is a line with what to type."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from importlib.util import find_spec

from pseudolabel.errors import MachineError

# extra -> what it is for, and the modules that it brings; pyproject.toml names the packages
EXTRAS: dict[str, tuple[str, tuple[str, ...]]] = {
    "train": (
        "trainings, and whatever runs a trained network",
        ("timm", "segmentation_models_pytorch", "lightning", "tensorboard", "kornia", "onnxscript", "huggingface_hub"),
    ),
    "report": ("report", ("jinja2", "markupsafe")),
    "calibrate": ("calibrate's picture", ("matplotlib",)),
    "sam": ("infer-prompted --model sam:DIR", ("transformers",)),
    "ray": ("--engine ray", ("ray",)),
    "microscopy": ("OME's and ImageJ's TIFF", ("tifffile",)),
}
_EXTRA_OF = {module: extra for extra, (_, modules) in EXTRAS.items() for module in modules}


def install_text(extra: str) -> str:
    """What to type to have an extra."""
    return f"pip install 'pseudolabel[{extra}]'"


def absent_module(extra: str) -> str | None:
    """The first module of an extra that is not installed, None where all are. Imports nothing."""
    return next((module for module in EXTRAS[extra][1] if find_spec(module) is None), None)


def need_extra(extra: str, what: str) -> None:
    """Pass where an extra is installed.

    Args:
        what: needs it, as the message says it.

    Raises:
        MachineError: it is not; the message has what to type.
    """
    module = absent_module(extra)
    if module is not None:
        raise MachineError(f"{what} needs {_absence(module)}")


@contextmanager
def absence_named() -> Iterator[None]:
    """An import of a module that some extra brings fails with the one line that says which; so does a torchvision
    that was built for another torch, as the usual index's is beside a torch of the CPU index.

    Raises:
        MachineError: in place of ModuleNotFoundError, or of RuntimeError; one of another module passes through.
    """
    try:
        yield
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
        raise MachineError(torchvision_misfit()) from error
    except ModuleNotFoundError as error:
        module = (error.name or "").partition(".")[0]
        if module not in _EXTRA_OF:
            raise
        raise MachineError(f"this needs {_absence(module)}") from error


def torchvision_misfit() -> str:
    """What is wrong with a torchvision whose operators cannot be loaded, and what to do."""
    found = f"torchvision {version('torchvision')} does not fit torch {version('torch')}"
    return f"{found}: install both at once, from one index, such as the CPU index that pytorch.org names"


def _absence(module: str) -> str:
    return f"{module}, which is not installed:  {install_text(_EXTRA_OF[module])}"
