"""An ONNX graph with several inputs and outputs; what stays on its device need not come back between two of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from jaxtyping import Shaped

from pseudolabel.errors import InputError, MachineError
from pseudolabel.prompted.base import one_line
from pseudolabel.segmenters.onnx import open_session

_TYPES = {
    "tensor(float)": np.float32,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(uint8)": np.uint8,
}
_MEMORY = ("Failed to allocate memory", "BFCArena", "CUDA failure", "CUBLAS", "CUDNN")


@dataclass(frozen=True, slots=True)
class Port:
    """An input of a graph; None stands for a free axis."""

    name: str
    shape: tuple[int | None, ...]
    dtype: Any


class OnnxGraph:
    """A session on one device.

    Raises:
        InputError: no such file, no model, or an input of a type that nobody here gives.
        MachineError: onnxruntime does not run on that device here.
    """

    def __init__(self, path: Path, *, device: str, threads: int) -> None:
        self.path = path
        self._session = open_session(path, device=device, threads=threads)
        self._kind, _, index = device.partition(":")
        self._index = int(index or 0)
        self.inputs = tuple(_port(value, path) for value in self._session.get_inputs())
        self.outputs = tuple(value.name for value in self._session.get_outputs())

    def run(self, feeds: Mapping[str, Any], outputs: Sequence[str]) -> dict[str, Shaped[np.ndarray, "..."]]:
        """The outputs on the host; inputs are arrays, or values that `keep` gave."""
        return {name: value.numpy() for name, value in self._bound(feeds, outputs, "cpu", 0).items()}

    def keep(self, feeds: Mapping[str, Any], outputs: Sequence[str]) -> dict[str, Any]:
        """The outputs on the graph's own device, for the inputs of another graph on it."""
        return self._bound(feeds, outputs, self._kind, self._index)

    def _bound(self, feeds: Mapping[str, Any], outputs: Sequence[str], kind: str, index: int) -> dict[str, Any]:
        binding = self._session.io_binding()
        for name, value in feeds.items():
            if isinstance(value, np.ndarray):
                binding.bind_cpu_input(name, np.ascontiguousarray(value))
            else:
                binding.bind_ortvalue_input(name, value)
        for name in outputs:
            binding.bind_output(name, kind, index)
        try:
            self._session.run_with_iobinding(binding)
        except Exception as error:  # onnxruntime raises types of its own C++ module, all plain Exceptions
            raise self._translated(error, feeds) from error
        return dict(zip(outputs, binding.get_outputs(), strict=True))

    def _translated(self, error: Exception, feeds: Mapping[str, Any]) -> Exception:
        text = one_line(error)
        if any(sign in text for sign in _MEMORY):
            return MachineError(f"{self.path}: {text}; try a smaller --boxes-at-once")
        given = ", ".join(f"{name} {_shape(value)}" for name, value in feeds.items())
        wanted = ", ".join(f"{port.name} {port.shape}" for port in self.inputs)
        return InputError(f"{self.path}: does not run on {given}; it takes {wanted}: {text}")


def _port(value: Any, path: Path) -> Port:
    if value.type not in _TYPES:
        raise InputError(f"{path}: its input {value.name} is a {value.type}; known: {', '.join(_TYPES)}")
    return Port(value.name, tuple(one if isinstance(one, int) else None for one in value.shape), _TYPES[value.type])


def _shape(value: np.ndarray | ort.OrtValue) -> tuple[int, ...]:
    return tuple(value.shape if isinstance(value, np.ndarray) else value.shape())
