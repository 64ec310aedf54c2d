"""Images in a folder: opened without leaving it, never blocking on a pipe, limited before they are read."""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from pseudolabel.errors import InputError, RejectError
from pseudolabel.sources.listing import files_below
from pseudolabel.sources.names import SIGNATURE_BYTES, has_known_signature, named_like_image

_OPEN_REASONS = {
    errno.ENOENT: "missing",
    errno.ENOTDIR: "missing",
    errno.EACCES: "permission",
    errno.EPERM: "permission",
    errno.ELOOP: "not_a_file",
    errno.ENXIO: "not_a_file",
    errno.EISDIR: "not_a_file",
    errno.ENAMETOOLONG: "bad_name",
}


class PlainFiles:
    """What is alike where every image is a file of its own: its name says where it lies, and nothing holds several."""

    def damage(self) -> Iterator[tuple[str, str]]:
        return iter(())

    def located(self, file_name: str) -> str:
        return file_name

    def shard_key(self, file_name: str) -> str | None:
        del file_name
        return None


class Folder(PlainFiles):
    """A folder as a source of images."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def check(self) -> None:
        if not self._root.is_dir():
            raise InputError(f"{self._root}: no such folder of images")

    def read(self, file_name: str, *, max_bytes: int, first_bytes: int | None = None) -> bytes:
        real_root = os.path.realpath(self._root)
        real = os.path.realpath(os.path.join(real_root, check_name(file_name)))
        if os.path.commonpath([real, real_root]) != real_root:
            raise RejectError("outside_root", f"a link leads out of the folder of images: {_shown(file_name)}")
        with _opened(real) as file:
            return _read_regular(file, max_bytes, first_bytes)

    def names(self) -> Iterator[str]:
        return (path for path in files_below(self._root)[0] if self.holds_image(path))

    def holds_image(self, path: str) -> bool:
        """Whether a file is named like an image or begins like one."""
        if named_like_image(path):
            return True
        try:
            first_bytes = self.read(path, max_bytes=SIGNATURE_BYTES, first_bytes=SIGNATURE_BYTES)
        except RejectError:
            return False
        return has_known_signature(first_bytes)


def check_name(file_name: object) -> str:
    """An untrusted file name as a plain relative POSIX path: the image key.

    Raises:
        RejectError: `bad_name` or `outside_root`.
    """
    if not isinstance(file_name, str) or not file_name.strip("/."):
        raise RejectError("bad_name", f"not a file name: {_shown(file_name)}")
    if "\0" in file_name or "\\" in file_name or "://" in file_name or not _is_text(file_name):
        raise RejectError("bad_name", f"not a relative path with forward slashes: {_shown(file_name)}")
    path = PurePosixPath(file_name)
    if path.is_absolute() or ".." in path.parts:
        raise RejectError("outside_root", f"leads out of the folder of images: {_shown(file_name)}")
    if len(file_name.encode()) > 4096 or any(len(part.encode()) > 255 for part in path.parts):
        raise RejectError("bad_name", f"too long for a file name: {_shown(file_name)}")
    return str(path)


def _shown(name: object) -> str:
    return ascii(name)[:120]


def _is_text(name: str) -> bool:
    """False for the half characters by which Python spells bytes that are not UTF-8; no table can hold them."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


@contextmanager
def _opened(path: str) -> Iterator[int]:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError as error:
        reason = _OPEN_REASONS.get(error.errno or 0)
        if reason is None:
            raise
        raise RejectError(reason, os.strerror(error.errno or 0)) from None
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _read_regular(descriptor: int, max_bytes: int, first_bytes: int | None) -> bytes:
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        raise RejectError("not_a_file", "not a regular file")
    if status.st_size > max_bytes and first_bytes is None:
        raise RejectError("too_large", f"{status.st_size} bytes, at most {max_bytes} are read")
    wanted = status.st_size if first_bytes is None else min(first_bytes, status.st_size)
    data = os.read(descriptor, wanted)
    while len(data) < wanted and (more := os.read(descriptor, wanted - len(data))):
        data += more
    if not data:
        raise RejectError("empty_file", "0 bytes")
    return data
