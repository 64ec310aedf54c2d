"""The checkpoints from which a training goes on: the two newest, each with its sha256 beside it.

    step-00000200.ckpt   step-00000200.sha256   step-00000400.ckpt   step-00000400.sha256

The digest is there before its checkpoint is, so that a checkpoint without one was not left by a kill. A damaged one is
put aside as `*.damaged`, and the one before it is used: which step a training goes on from changes nothing of what
comes out at its end.
"""

import hashlib
import logging
import re
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

import torch
from torch import Tensor, nn

from pseudolabel.errors import InputError
from pseudolabel.files import atomic_file, sweep_temporaries
from pseudolabel.training.guard import NonFiniteLossError

KEPT = 2
_NAMED = 5
_NAME = re.compile(r"step-(\d{8,})\.ckpt(\.damaged)?")
_log = logging.getLogger(__name__)


class DamagedCheckpointError(InputError):
    """A checkpoint is not what was written, or holds what no training can go on from."""


class Checkpoints:
    """The checkpoints in one training's folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def save(self, step: int, method: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Write the state after `step` steps; only then is the oldest but one removed.

        Raises:
            MachineError: the disk is full or the folder cannot be written; the checkpoints before are still there.
            NonFiniteLossError: there is no going on from a NaN or an infinite value.
        """
        content = {"step": step, "method": method.state_dict(), "optimizer": optimizer.state_dict()}
        path = self._path(step)
        if bad := list(islice(_not_finite(content), _NAMED)):
            raise NonFiniteLossError(f"step {step - 1}: NaN or infinite values in {', '.join(bad)}")
        with atomic_file(path) as file:
            hashed = _HashedFile(file)
            torch.save(content, cast(IO[bytes], hashed))  # of a file, torch asks for no more than this
            with atomic_file(_digest_path(path)) as beside:
                beside.write(f"{hashed.digest.hexdigest()}  {path.name}\n".encode())
        for old in self._steps()[KEPT:]:
            self._path(old).unlink(missing_ok=True)
            _digest_path(self._path(old)).unlink(missing_ok=True)

    def restore(self, method: nn.Module, optimizer: torch.optim.Optimizer) -> int:
        """Fill both from the newest checkpoint that is whole, and return its step; 0 where there is none.

        Raises:
            InputError: a whole checkpoint is of another network.
        """
        found = self._steps()
        for step in found:
            try:
                content = _read(self._path(step), step)
            except DamagedCheckpointError as error:
                self._put_aside(step, error)
                continue
            _check_fits(content, method, optimizer, self._path(step))
            method.load_state_dict(content["method"])
            optimizer.load_state_dict(content["optimizer"])
            return step
        if found:
            _log.warning("%s: no checkpoint is whole; the training starts from the beginning", self.folder)
        return 0

    def sweep(self) -> None:
        """Remove what a dead process left half written, and damaged checkpoints that a later, whole one replaces."""
        sweep_temporaries(self.folder)
        newest = max(self._steps(), default=-1)
        for path in self.folder.glob("step-*.ckpt.damaged"):
            name = _NAME.fullmatch(path.name)
            if name and int(name[1]) <= newest:
                path.unlink(missing_ok=True)
        for path in self.folder.glob("step-*.sha256"):
            if not path.with_suffix(".ckpt").exists():
                path.unlink(missing_ok=True)

    def _path(self, step: int) -> Path:
        return self.folder / f"step-{step:08d}.ckpt"

    def _steps(self) -> list[int]:
        """Steps of the checkpoints, whole or not, the newest first."""
        names = [_NAME.fullmatch(path.name) for path in self.folder.glob("step-*.ckpt")]
        return sorted((int(name[1]) for name in names if name), reverse=True)

    def _put_aside(self, step: int, error: DamagedCheckpointError) -> None:
        path = self._path(step)
        path.replace(path.with_name(f"{path.name}.damaged"))
        _digest_path(path).unlink(missing_ok=True)
        _log.warning("%s; it is put aside as %s.damaged", error, path.name)


class _HashedFile:
    """A file to write to that knows the sha256 of what was written."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self.digest = file, hashlib.sha256()

    def write(self, data: bytes) -> int:
        self.digest.update(data)
        return self._file.write(data)

    def flush(self) -> None:
        self._file.flush()


def _digest_path(path: Path) -> Path:
    return path.with_suffix(".sha256")


def _read(path: Path, step: int) -> dict[str, Any]:
    """The content of a checkpoint that is what was written, of the types that are expected, and all numbers."""
    try:
        wanted = _digest_path(path).read_bytes()[:64]
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest().encode()
    except FileNotFoundError as error:
        raise DamagedCheckpointError(f"{path}: damaged, no {Path(error.filename).name} beside it") from None
    if wanted != found:
        raise DamagedCheckpointError(
            f"{path}: damaged, {path.stat().st_size} bytes whose sha256 is not that of {_digest_path(path).name}"
        )
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, MemoryError):
        raise
    except Exception as error:  # the bytes are those that were written, so that it is another program's file
        raise DamagedCheckpointError(f"{path}: no checkpoint ({str(error).splitlines()[0][:160]})") from None
    kinds = {"step": int, "method": Mapping, "optimizer": Mapping}
    if not isinstance(content, dict) or not all(isinstance(content.get(key), kind) for key, kind in kinds.items()):
        raise DamagedCheckpointError(f"{path}: no checkpoint of a training, which has {', '.join(kinds)}")
    if content["step"] != step:
        raise DamagedCheckpointError(f"{path}: is of step {content['step']}")
    if bad := list(islice(_not_finite(content), _NAMED)):
        raise DamagedCheckpointError(f"{path}: NaN or infinite values in {', '.join(bad)}")
    return content


def _check_fits(content: Mapping[str, Any], method: nn.Module, optimizer: torch.optim.Optimizer, path: Path) -> None:
    """Pass if every tensor of the method is there in its shape and nothing else, and the optimiser's fit these."""
    wanted, found = method.state_dict(), content["method"]
    shapes = [_shape(wanted[name]) == _shape(found[name]) for name in wanted.keys() & found.keys()]
    groups, kept = optimizer.state_dict()["param_groups"], content["optimizer"].get("param_groups")
    if wanted.keys() == found.keys() and all(shapes) and _numbers(groups) == _numbers(kept):
        weights = [weight for group in optimizer.param_groups for weight in group["params"]]
        states = content["optimizer"].get("state", {})
        if all(_moments_fit(states.get(number, {}), weight) for number, weight in enumerate(weights)):
            return
    raise InputError(f"{path}: whole, but of another network; remove {path.parent} to train from the beginning")


def _shape(value: object) -> tuple[int, ...] | None:
    return tuple(value.shape) if isinstance(value, Tensor) else None


def _numbers(groups: object) -> list[Any] | None:
    """The numbers of the parameters in each of an optimiser's groups."""
    if not isinstance(groups, list) or not all(isinstance(group, Mapping) for group in groups):
        return None
    return [group.get("params") for group in groups]


def _moments_fit(state: object, weight: Tensor) -> bool:
    """Whether an optimiser's state is one of this weight: a number of steps and tensors of its shape."""
    if not isinstance(state, Mapping):
        return False
    return all(isinstance(one, Tensor) and one.shape in ((), weight.shape) for one in state.values())


def _not_finite(content: object, name: str = "") -> Iterator[str]:
    """The names of tensors with a NaN or an infinite value, through tables and lists."""
    if isinstance(content, Tensor):
        if content.is_floating_point() and not bool(content.isfinite().all()):
            yield name
    elif isinstance(content, Mapping):
        for key, value in content.items():
            yield from _not_finite(value, f"{name}.{key}".lstrip("."))
    elif isinstance(content, list | tuple):
        for place, value in enumerate(content):
            yield from _not_finite(value, f"{name}.{place}")
