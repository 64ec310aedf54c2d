"""Files that are wholly there or not at all, and what dead processes left of those that they were writing."""

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
_REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS, errno.EISDIR, errno.ENOTDIR, errno.EEXIST)


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary name in the same folder that becomes `path` when the block ends well, and vanishes when not.

    Raises:
        MachineError: the disk is full or the folder cannot be written; what `path` was before it still is.
    """
    temporary = path.parent / temporary_name(path.name)
    with machine_faults_named(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            fsync(temporary)
            temporary.replace(path)
            fsync(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """As `atomic_path`, opened for writing here, so that the umask decides its mode, whichever library writes."""
    with atomic_path(path) as temporary, temporary.open("xb") as file:
        yield file


def write_text_atomically(path: Path, text: str) -> None:
    """Write a small text file that is never seen half written."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def temporary_name(name: str) -> str:
    """A hidden name that no other process will choose, and that tells whose it was."""
    return f".{name}.{socket.gethostname()}.{os.getpid()}.{uuid.uuid4().hex[:8]}.tmp"


def sweep_temporaries(folder: Path) -> int:
    """Remove temporary files and folders that dead processes of this host left; how many there were."""
    gone = [path for path in folder.glob(".*.tmp") if owner_is_gone(path)]
    for path in gone:
        shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
    return len(gone)


def owner_is_gone(path: Path) -> bool:
    """Whether a name of `temporary_name` is that of a process that died on this host; of other hosts nobody knows."""
    _, here, rest = path.name.rpartition(f".{socket.gethostname()}.")
    pid = rest.split(".")[0]
    return bool(here) and pid.isdigit() and not process_is_alive(int(pid))


def process_is_alive(pid: int) -> bool:
    """Whether a process of this number lives on this host; one that died and that nobody asked after does not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return not _is_zombie(pid)


def _is_zombie(pid: int) -> bool:
    """In a container without an init process, orphans that died stay in the table for ever."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].startswith("Z")
    except OSError:  # no /proc on this system
        return False


@contextmanager
def machine_faults_named(path: Path) -> Iterator[None]:
    """A full disk, a missing permission and the like, met while `path` is written, as one line about it.

    torch hides the disk's fault behind a RuntimeError. Any other error passes as it is: trying again may cure it.

    Raises:
        MachineError: naming the path and the cause.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:
        cause = error if isinstance(error, OSError) else error.__context__
        said = _refusal(path, cause) if isinstance(cause, OSError) else ""
        if not said:
            raise
        raise MachineError(f"cannot write {path}: {said}") from error


def _refusal(path: Path, error: OSError) -> str:
    if error.errno in _DISK_FULL:
        folder = next(parent for parent in path.resolve().parents if parent.exists())
        return f"no space left ({error.strerror}; {shutil.disk_usage(folder).free} bytes free)"
    return str(error.strerror) if error.errno in _REFUSED else ""


def fsync(path: Path) -> None:
    """Wait until a file's content, or a folder's list of names, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
