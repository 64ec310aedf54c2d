"""What lies in a folder of transformers: which model of the SAM family it holds, and the files that decide.

Imports no torch: the driver asks for the files.
"""

import importlib.util
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pseudolabel.errors import ConfigError, InputError
from pseudolabel.optional import need_extra
from pseudolabel.prompted.frame import Fit

_PROCESSORS = ("processor_config.json", "preprocessor_config.json")


@dataclass(frozen=True, slots=True)
class SamKind:
    """A model of transformers that hears boxes."""

    model_class: str
    fit: Fit


_SAM2 = SamKind("Sam2Model", "stretched")
_EDGETAM = SamKind("EdgeTamModel", "stretched")
_SAM3 = SamKind("Sam3TrackerModel", "stretched")
# by `model_type` in config.json; the video models hold the same image model and more
KINDS = {
    "sam": SamKind("SamModel", "padded"),
    "sam_hq": SamKind("SamHQModel", "padded"),
    "sam2": _SAM2,
    "sam2_video": _SAM2,
    "edgetam": _EDGETAM,
    "edgetam_video": _EDGETAM,
    "sam3_tracker": _SAM3,
    "sam3_tracker_video": _SAM3,
    "sam3_video": _SAM3,
}


def sam_files(where: str, card: Path | None) -> Mapping[str, Path]:
    """Config, processor and weights of a folder, and transformers itself, whose code prepares the images.

    Raises:
        ConfigError: a card is given: the folder says everything itself.
        MachineError: transformers is not installed.
        InputError: no folder, no model that hears boxes, or no safetensors.
    """
    if card is not None:
        raise ConfigError("--card: a sam: folder says itself how its input is prepared; omit it")
    folder = sam_folder(where)
    sam_kind(folder)
    weights = sorted(folder.glob("*.safetensors"))
    processors = [folder / name for name in _PROCESSORS if (folder / name).is_file()]
    if not weights:
        raise InputError(f"{folder}: no *.safetensors in it (other weights are not read: they may hold code)")
    if not processors:
        raise InputError(f"{folder}: neither {' nor '.join(_PROCESSORS)}; save the model's processor there, too")
    index = folder / "model.safetensors.index.json"
    found = [folder / "config.json", *processors, *weights, *([index] if index.is_file() else [])]
    return {path.name: path for path in found} | {"transformers": _transformers()}


def sam_folder(where: str) -> Path:
    """The folder behind `sam:`; never a name of the hub, whose content may change.

    Raises:
        InputError: it is not there.
    """
    folder = Path(where)
    if not folder.is_dir():
        raise InputError(
            f"sam:{where} is no folder here; get one with  hf download {where} --local-dir {folder.name}  "
            f"and give  sam:{folder.name}"
        )
    return folder


def sam_kind(folder: Path) -> SamKind:
    """Which model the folder's config.json names.

    Raises:
        InputError: no such file, or a model that hears no boxes.
    """
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(f"{path}: no config of a model ({error})") from None
    name = config.get("model_type") if isinstance(config, dict) else None
    if name == "sam3":
        raise InputError(
            f"{folder}: Sam3Model finds concepts by words, not boxes; give a sam3_tracker or sam3_video one"
        )
    if name not in KINDS:
        raise InputError(f"{folder}: no box-prompted model called {name!r} (known: {', '.join(KINDS)})")
    return KINDS[name]


def _transformers() -> Path:
    """The file that says transformers' version.

    Raises:
        MachineError: it is not installed.
    """
    need_extra("sam", "sam:")
    found = importlib.util.find_spec("transformers")
    assert found is not None, "it is installed"
    return Path(str(found.origin))
