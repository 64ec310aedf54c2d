"""The files that an ONNX model is made of: it may keep its weights in others beside it."""

from collections.abc import Mapping
from pathlib import Path

from pseudolabel.errors import InputError
from pseudolabel.registry import no_such_model


def onnx_files(path: Path, name: str) -> Mapping[str, Path]:
    """An ONNX file and those that hold its external tensors, by `name` and `name:LOCATION`. Reads no weights.

    Raises:
        InputError: it is not there or no ONNX model, a file beside it is missing, or lies outside its folder.
    """
    import onnx
    from onnx.external_data_helper import ExternalDataInfo, _get_all_tensors, uses_external_data

    try:
        model = onnx.load(path, load_external_data=False)
    except FileNotFoundError:
        raise InputError(no_such_model(path)) from None
    except Exception as error:  # protobuf's own types
        raise InputError(f"{path}: not an ONNX model ({' '.join(str(error).split())[:200]})") from error
    tensors = [tensor for tensor in _get_all_tensors(model) if uses_external_data(tensor)]
    beside = sorted({ExternalDataInfo(tensor).location for tensor in tensors})
    return {name: path} | {f"{name}:{location}": _beside(path, location) for location in beside}


def _beside(model: Path, location: str) -> Path:
    path = model.parent / location
    if model.parent.resolve() not in path.resolve().parents:
        raise InputError(f"{model}: its weights lie outside its folder, in {location}")
    if not path.is_file():
        raise InputError(f"{model}: its weights are in {path.name}, which is not beside it")
    return path
