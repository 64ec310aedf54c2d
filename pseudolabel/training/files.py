"""Files that are wholly there or not at all, and what processes left that died while they wrote one."""

import errno
import os
import shutil
import socket
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from pseudolabel.errors import MachineError

_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_IN_USE = "in-use"


@contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """A new file in the same folder that becomes `path` when the block ends well, and vanishes when not.

    It is opened here, so that its mode is what the umask leaves of 0666, whichever library writes into it.

    Raises:
        MachineError: the disk is full, or the folder cannot be written; what `path` was before it still is.
    """
    temporary = path.parent / temporary_name(path.name)
    with disk_faults_explained(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("xb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
            _fsync_folder(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def disk_faults_explained(path: Path) -> Iterator[None]:
    """What the disk does not do as a MachineError; torch hides the disk's error behind a RuntimeError of its own."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        cause = error if isinstance(error, OSError) else error.__context__
        if not isinstance(cause, OSError):
            raise
        standing = next(parent for parent in path.absolute().parents if parent.exists())
        space = f"; {shutil.disk_usage(standing).free} bytes free" if cause.errno in _DISK_FULL else ""
        raise MachineError(f"{path.parent}: {path.name} cannot be written ({cause.strerror}{space})") from error


def temporary_name(name: str) -> str:
    """A hidden name that no other process will choose, and that tells whose it was."""
    return f".{name}.{socket.gethostname()}.{os.getpid()}.{uuid.uuid4().hex[:8]}.tmp"


def owner_is_gone(path: Path) -> bool:
    """Whether a name of `temporary_name` is that of a process that died on this host; of other hosts nobody knows."""
    _, here, rest = path.name.rpartition(f".{socket.gethostname()}.")
    pid = rest.split(".")[0]
    return bool(here) and pid.isdigit() and not _is_alive(int(pid))


def sweep_temporaries(folder: Path) -> None:
    """Remove what dead processes of this host left half written."""
    for path in folder.glob(".*.tmp"):
        if owner_is_gone(path):
            path.unlink(missing_ok=True)


def mark_in_use(folder: Path) -> Path:
    """A file that says, as long as this process lives, that it works in this folder; to be removed afterwards."""
    folder.mkdir(parents=True, exist_ok=True)
    mark = folder / temporary_name(_IN_USE)
    mark.touch()
    return mark


def sweep_abandoned(folders: Path, pattern: str) -> None:
    """Remove the files of this pattern from all folders in which no living process works."""
    for folder in [path for path in folders.glob("*") if path.is_dir()]:
        sweep_temporaries(folder)
        if not any(folder.glob(f".{_IN_USE}.*.tmp")):
            for path in folder.glob(pattern):
                path.unlink(missing_ok=True)


def _fsync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _is_alive(pid: int) -> bool:
    """Whether a process of this number lives on this host; one that died and that nobody asked after does not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    try:
        return not Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].startswith("Z")
    except OSError:  # no /proc on this system
        return True
