"""ONNX files through onnxruntime, on exactly the device that was asked for."""

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import torch
from torch import Tensor

from pseudolabel.errors import ConfigError, InputError, MachineError
from pseudolabel.registry import no_such_model
from pseudolabel.segmenters.base import SegmenterOptions
from pseudolabel.segmenters.card import ModelCard, find_card
from pseudolabel.segmenters.network import Batch, Logits, NetworkSegmenter

PROBE_LIMIT_S = 120.0
_SURE_LOGIT = 12.0  # of a class in a label map: its probability is above 0.999 beside 254 others
LABEL_TYPES = tuple(f"tensor({sign}int{bits})" for sign in ("", "u") for bits in (8, 16, 32, 64))
_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


class OnnxNetwork:
    """A session whose output is written straight into a torch tensor on the session's device.

    Channels may stand last in input or output. A model that ends in an argmax gives a label map: it comes as logits
    that are sure of the class that it has in each cell, and of none where it has the ignored one.

    Args:
        path: the ONNX file.
        card: says which output counts where there are several, how many classes there are and which index is ignored.
    """

    def __init__(self, path: Path, card: ModelCard | None = None, *, device: str = "cpu", threads: int = 1) -> None:
        self._device = torch.device(device)
        self._session = open_session(path, device=device, threads=threads)
        self._input, self._output = _signature(self._session, path, card.output.name if card else None)
        self._path, self._card = path, card
        self._shapes: dict[tuple[int, ...], tuple[int, ...]] = {}
        self._channels_last_in = channels_last(self._input.shape)

    @property
    def input_shape(self) -> list[int | str]:
        """Declared shape of the input, channels first; a name stands for a free axis."""
        shape = list(self._input.shape)
        return [shape[0], shape[3], shape[1], shape[2]] if self._channels_last_in else shape

    def __call__(self, batch: Batch) -> Logits:
        entering = batch.permute(0, 2, 3, 1).contiguous() if self._channels_last_in else batch
        if self._output.type in LABEL_TYPES:
            return self._sure_logits(torch.from_numpy(self._run(entering)).to(self._device))
        logits = self._logits(entering)
        classes = len(self._card.classes) if self._card else logits.shape[1]
        last = logits.ndim == 4 and logits.shape[1] != classes == logits.shape[3]
        return logits.permute(0, 3, 1, 2).contiguous() if last else logits

    def _sure_logits(self, labels: Tensor) -> Logits:
        """Logits of a label map (n, h, w) or (n, 1, h, w).

        Raises:
            InputError: the map has an index that the card has no class for.
        """
        if labels.ndim == 4 and 1 in (labels.shape[1], labels.shape[3]):
            labels = labels.squeeze(1 if labels.shape[1] == 1 else 3)
        if self._card is None or labels.ndim != 3:
            raise InputError(f"{self._path}: expected a label map (batch, height, width), got {tuple(labels.shape)}")
        classes, labels = len(self._card.classes), labels.long()
        ignored = labels == self._card.ignore_index
        beyond = (labels < 0) | (labels >= classes)
        if bool((beyond & ~ignored).any()):
            found = int(labels[beyond & ~ignored][0])
            raise InputError(f"{self._path}: its label map has the index {found}, its card lists {classes} classes")
        one_hot = torch.nn.functional.one_hot(labels.masked_fill(beyond, 0), classes).permute(0, 3, 1, 2)
        return one_hot.masked_fill((ignored & beyond)[:, None], 0).float() * _SURE_LOGIT

    def _logits(self, batch: Tensor) -> Tensor:
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

    def _output_shape(self, batch: Tensor) -> tuple[int, ...]:
        """Shape of the output for one shape of input."""
        output = self._run(batch)
        if output.dtype != np.float32:
            raise InputError(
                f"{self._path}: expected float32 logits or a label map of whole numbers, got {output.dtype}; "
                "export the model in float32"
            )
        return tuple(output.shape)

    def _run(self, batch: Tensor) -> np.ndarray:
        """The output for a batch, by a run that is ended when it takes too long."""
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
            watchdog.join()
        result: np.ndarray = output
        return result

    def _run_error(self, batch: Tensor, error: Exception) -> Exception:
        text = str(error).replace("\n", " ")[:200]
        if any(sign in text for sign in ("Failed to allocate memory", "BFCArena", "CUDA failure", "CUBLAS", "CUDNN")):
            return MachineError(f"{self._path}: {text}")
        return InputError(
            f"{self._path}: does not run on input {tuple(batch.shape)}, it takes {self.input_shape}: {text}"
        )


def open_onnx(where: str, options: SegmenterOptions) -> NetworkSegmenter:
    """The segmenter of an ONNX file and its card."""
    path = Path(where)
    if not path.is_file():
        raise InputError(no_such_model(path))
    card = find_card(path, options)
    network = OnnxNetwork(path, card, device=options.device, threads=options.threads)
    batch_size = _batch_size(network.input_shape, options.batch_size, path)
    if all(isinstance(side, int) for side in network.input_shape[2:]):
        card = _of_one_size(network.input_shape, card, options.long_side, path)
    return NetworkSegmenter(network, card, batch_size=batch_size, long_side=options.long_side)


def open_session(path: Path, *, device: str = "cpu", threads: int = 1) -> Any:
    """An onnxruntime session on the device asked for, never silently on another.

    Raises:
        InputError: no such file, or no ONNX model.
        MachineError: onnxruntime does not run on that device here.
    """
    if not path.is_file():
        raise InputError(no_such_model(path))
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


def _signature(session: Any, path: Path, output_name: str | None) -> tuple[Any, Any]:
    """The input and the output that counts: the one that the card names, or the only one."""
    inputs, outputs = session.get_inputs(), session.get_outputs()
    wanted = "one float32 input (batch, 3, height, width) and one output (batch, classes, height, width)"
    found = ", ".join(f"{value.name} {value.type} {value.shape}" for value in [*inputs, *outputs])
    sound = len(inputs) == 1 and inputs[0].type == "tensor(float)" and len(inputs[0].shape) == 4
    channels = inputs[0].shape[3 if sound and channels_last(inputs[0].shape) else 1] if sound else None
    if not sound or (isinstance(channels, int) and channels != 3):
        raise InputError(f"{path}: expected {wanted}, found {found}")
    chosen = [value for value in outputs if value.name == output_name] if output_name else outputs
    if len(chosen) != 1:
        names = ", ".join(value.name for value in outputs)
        said = f"no output called {output_name!r}" if output_name else f"{len(outputs)} outputs"
        raise InputError(f"{path}: {said} (there: {names}); name the logits in its card:  output: {{name: ...}}")
    return inputs[0], chosen[0]


def channels_last(shape: Sequence[int | str | None]) -> bool:
    """Whether a declared shape of an input has its three colours last."""
    return len(shape) == 4 and shape[3] == 3 and shape[1] != 3


def _batch_size(shape: list[int | str], wanted: int, path: Path) -> int:
    """The model's own batch where it is fixed; asking for another one is an error, except for the default of 1."""
    fixed = shape[0] if isinstance(shape[0], int) else None
    if fixed is None or wanted == fixed:
        return wanted
    if wanted != 1:
        raise ConfigError(f"--batch-size {wanted}: {path} takes batches of {fixed} alone")
    return fixed


def _of_one_size(shape: list[int | str], card: ModelCard, long_side: int | None, path: Path) -> ModelCard:
    """The card of a model with a fixed input size, without a rule for others.

    That size must be the one at which the card (or `--long-side`) lets images in.
    """
    fixed = shape[2:]
    if long_side is not None or card.input.size is None or list(card.input.size) != fixed:
        said = card.input.size if long_side is None else f"--long-side {long_side}"
        raise ConfigError(f"{path} takes images of {fixed[0]}x{fixed[1]} alone, its card says {said}")
    return card.model_copy(update={"input": card.input.model_copy(update={"size_rule": None})})
