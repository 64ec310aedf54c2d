"""Names of files made from the names of images, which may have come from anybody."""

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import PurePosixPath

import numpy as np
from jaxtyping import UInt64

_BAD = set('<>:"|?*') | {chr(code) for code in (*range(32), 127)}
_LONGEST_BYTES = 180  # of one part of a name: file systems take 255, and suffixes and temporary names need some
Folded = UInt64[np.ndarray, " n"]


def safe_name(file_name: str) -> PurePosixPath:
    """A relative path without a way out: drives, leading slashes, `.` and `..` are gone, odd characters are `_`."""
    parts = [_safe_part(part) for part in file_name.replace("\\", "/").split("/") if part not in ("", ".", "..")]
    return PurePosixPath(*parts) if parts else PurePosixPath("image")


def unlike_others(name: PurePosixPath, key: str, clashing: Folded) -> PurePosixPath:
    """The name; with a mark of the image's key where others have it, too: with another suffix, or in capitals."""
    place = int(np.searchsorted(clashing, _folded(name)))
    if place == len(clashing) or clashing[place] != _folded(name):
        return name
    mark = hashlib.blake2b(key.encode("utf-8", "surrogateescape"), digest_size=4).hexdigest()
    return name.with_name(f"{name.stem}-{mark}{name.suffix}")


def clashing_names(names: Iterable[PurePosixPath]) -> Folded:
    """What several of the names have in common, sorted, for `unlike_others`; eight bytes of memory for each name."""
    folded = np.fromiter(_each_folded(names), dtype=np.uint64)
    values, counts = np.unique(folded, return_counts=True)
    clashing: Folded = values[counts > 1]
    return clashing


def _each_folded(names: Iterable[PurePosixPath]) -> Iterator[int]:
    return (int(_folded(name)) for name in names)


def _folded(name: PurePosixPath) -> np.uint64:
    text = str(name.with_suffix("")).casefold()
    return np.uint64(int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big"))


def _safe_part(part: str) -> str:
    text = "".join("_" if sign in _BAD else sign for sign in part).encode("utf-8", "replace").decode("utf-8")
    text = "_" + text[1:] if text.startswith(".") else text  # no hidden files
    if len(text.encode()) <= _LONGEST_BYTES:
        return text
    mark = hashlib.blake2b(text.encode(), digest_size=4).hexdigest()
    suffix = PurePosixPath(text).suffix[:16]
    return text.encode()[: _LONGEST_BYTES - 32].decode("utf-8", "ignore") + f"-{mark}{suffix}"
