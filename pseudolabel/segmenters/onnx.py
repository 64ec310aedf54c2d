"""ONNX files through onnxruntime, on exactly the device that was asked for."""

import threading
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import torch

from pseudolabel.errors import ConfigError, InputError, MachineError
from pseudolabel.segmenters.base import SegmenterOptions
from pseudolabel.segmenters.card import ModelCard, find_card
from pseudolabel.segmenters.network import Batch, Logits, NetworkSegmenter

PROBE_LIMIT_S = 120.0
_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


class OnnxNetwork:
    """A session whose output is written straight into a torch tensor on the session's device."""

    def __init__(self, path: Path, *, device: str = "cpu", threads: int = 1) -> None:
        self._device = torch.device(device)
        self._session = open_session(path, device=device, threads=threads)
        self._input, self._output = _signature(self._session, path)
        self._path = path
        self._shapes: dict[tuple[int, ...], tuple[int, ...]] = {}

    @property
    def input_shape(self) -> list[int | str]:
        """Declared shape of the input; a name stands for a free axis."""
        return list(self._input.shape)

    def __call__(self, batch: Batch) -> Logits:
        shape = tuple(batch.shape)
        if shape not in self._shapes:
            self._shapes[shape] = self._output_shape(batch)
        logits = torch.empty(self._shapes[shape], dtype=torch.float32, device=self._device)
        binding = self._session.io_binding()
        binding.bind_cpu_input(self._input.name, batch.numpy())
        index = self._device.index or 0
        where = (self._device.type, index, np.float32, tuple(logits.shape), logits.data_ptr())
        binding.bind_output(self._output.name, *where)
        self._session.run_with_iobinding(binding)
        binding.synchronize_outputs()
        return logits

    def _output_shape(self, batch: Batch) -> tuple[int, ...]:
        """Shape of the output for one shape of input, learned by a run that is ended when it takes too long."""
        options = ort.RunOptions()
        watchdog = threading.Timer(PROBE_LIMIT_S, lambda: setattr(options, "terminate", True))
        watchdog.daemon = True
        watchdog.start()
        try:
            (output,) = self._session.run([self._output.name], {self._input.name: batch.numpy()}, options)
        except Exception as error:  # onnxruntime raises types of its own C++ module, all plain Exceptions
            raise self._run_error(batch, error) from error
        finally:
            watchdog.cancel()
        if output.dtype != np.float32:
            raise InputError(f"{self._path}: expected float32 logits, got {output.dtype}")
        return tuple(output.shape)

    def _run_error(self, batch: Batch, error: Exception) -> Exception:
        text = str(error).replace("\n", " ")[:200]
        if any(sign in text for sign in ("Failed to allocate memory", "BFCArena", "CUDA failure", "CUBLAS", "CUDNN")):
            return MachineError(f"{self._path}: {text}")
        return InputError(
            f"{self._path}: does not run on input {tuple(batch.shape)}, it takes {self.input_shape}: {text}"
        )


def open_onnx(where: str, options: SegmenterOptions) -> NetworkSegmenter:
    """The segmenter of an ONNX file and its card."""
    path = Path(where)
    card = find_card(path, options)
    network = OnnxNetwork(path, device=options.device, threads=options.threads)
    batch_size = _batch_size(network.input_shape, options.batch_size, path)
    _check_size(network.input_shape, card, options.long_side, path)
    return NetworkSegmenter(network, card, batch_size=batch_size, long_side=options.long_side)


def open_session(path: Path, *, device: str = "cpu", threads: int = 1) -> Any:
    """An onnxruntime session on the device asked for, never silently on another.

    Raises:
        InputError: no such file, or no ONNX model.
        MachineError: onnxruntime does not run on that device here.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such ONNX file")
    kind, _, index = device.partition(":")
    provider = _PROVIDERS[kind]
    if provider not in ort.get_available_providers():
        raise MachineError(f"--device {device}: this onnxruntime has no {provider}; install onnxruntime-gpu")
    session_options = ort.SessionOptions()
    session_options.intra_op_num_threads = threads
    session_options.inter_op_num_threads = 1
    session_options.log_severity_level = 3
    chosen: list[Any] = [(provider, {"device_id": int(index or 0)}) if kind == "cuda" else provider]
    try:
        session = ort.InferenceSession(str(path), session_options, providers=chosen)
    except Exception as error:  # onnxruntime raises types of its own C++ module, all plain Exceptions
        raise InputError(f"{path}: not an ONNX model that runs here ({str(error)[:200]})") from error
    if session.get_providers()[0] != provider:
        raise MachineError(
            f"--device {device}: onnxruntime {ort.__version__} fell back to {session.get_providers()[0]}; "
            "check the CUDA and cuDNN libraries, or use --device cpu"
        )
    return session


def _signature(session: Any, path: Path) -> tuple[Any, Any]:
    inputs, outputs = session.get_inputs(), session.get_outputs()
    wanted = "one float32 input (batch, 3, height, width) and one output (batch, classes, height, width)"
    found = ", ".join(f"{value.name} {value.type} {value.shape}" for value in [*inputs, *outputs])
    sound = len(inputs) == len(outputs) == 1 and inputs[0].type == "tensor(float)" and len(inputs[0].shape) == 4
    if not sound or (isinstance(inputs[0].shape[1], int) and inputs[0].shape[1] != 3):
        raise InputError(f"{path}: expected {wanted}, found {found}")
    return inputs[0], outputs[0]


def _batch_size(shape: list[int | str], wanted: int, path: Path) -> int:
    """The model's own batch where it is fixed; asking for another one is an error, except for the default of 1."""
    fixed = shape[0] if isinstance(shape[0], int) else None
    if fixed is None or wanted == fixed:
        return wanted
    if wanted != 1:
        raise ConfigError(f"--batch-size {wanted}: {path} takes batches of {fixed} alone")
    return fixed


def _check_size(shape: list[int | str], card: ModelCard, long_side: int | None, path: Path) -> None:
    """A fixed input size must be the one at which the card (or `--long-side`) lets images in."""
    fixed = shape[2:]
    if not all(isinstance(side, int) for side in fixed):
        return
    if long_side is not None or card.input.size is None or list(card.input.size) != fixed:
        said = card.input.size if long_side is None else f"--long-side {long_side}"
        raise ConfigError(f"{path} takes images of {fixed[0]}x{fixed[1]} alone, its card says {said}")
