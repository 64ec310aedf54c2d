"""Which image a decoder works on now, so that whoever supervises this process can tell what killed it.

A decoder in C that meets hostile bytes may take the whole process with it. Around every decoding stands `decoding`,
which leaves the digest of the bytes in memory that the supervisor shares; the supervisor hands the digests that killed
a process twice to the next one, where they are refused. Without a supervisor nothing is noted and nothing refused.
"""

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from pseudolabel.errors import RejectError

NOTE_BYTES = 32
_NOTHING = bytes(NOTE_BYTES)

_note: Any = None  # writable shared memory of NOTE_BYTES, where this process is supervised
_deadly: frozenset[str] = frozenset()


def supervise(note: Any, deadly: Iterable[str]) -> None:
    """Note from now on what is decoded, and refuse what killed a process before.

    Args:
        note: writable buffer of NOTE_BYTES that outlives this process; None ends the supervision.
        deadly: digests as `noted` gives them.
    """
    global _note, _deadly
    _note, _deadly = note, frozenset(deadly)


def noted(note: Any) -> str | None:
    """The digest of what was being decoded when the process ended, None where it was not decoding."""
    content = bytes(note[:NOTE_BYTES])
    return None if content == _NOTHING else content.hex()


@contextmanager
def decoding(data: bytes) -> Iterator[None]:
    """Stands around the decoding of `data`.

    Raises:
        RejectError: `decoder_crash`: these bytes killed the process before.
    """
    if _note is None:
        yield
        return
    digest = hashlib.blake2b(data, digest_size=NOTE_BYTES)
    if digest.hexdigest() in _deadly:
        raise RejectError("decoder_crash", "decoding these bytes killed the process twice")
    _note[:NOTE_BYTES] = digest.digest()
    try:
        yield
    finally:
        _note[:NOTE_BYTES] = _NOTHING
