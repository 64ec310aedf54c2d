"""Files that are wholly there or not at all."""

import gzip
import os
import socket
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

from pseudolabel.errors import MachineError


@contextmanager
def atomic_sink(path: Path) -> Iterator[IO[bytes]]:
    """A binary file that takes the name `path` when the block ends well, and vanishes when not.

    A name that ends in `.gz` is compressed, with no time stamp in it, so that equal content gives equal bytes.

    Raises:
        MachineError: the folder or the disk refuses.
    """
    temporary = path.parent / f".{path.name}.{socket.gethostname()}.{os.getpid()}.{uuid.uuid4().hex[:8]}.tmp"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("wb") as raw:
                with _compressed(raw) if path.suffix == ".gz" else _as_it_is(raw) as sink:
                    yield sink
                raw.flush()
                os.fsync(raw.fileno())
            temporary.rename(path)
            _sync_folder(path.parent)
        finally:
            temporary.unlink(missing_ok=True)
    except FileNotFoundError:  # not of this file, whose folder is made: something that the block reads is missing
        raise
    except OSError as error:
        raise MachineError(f"cannot write {path}: {error.strerror or error}") from error


@contextmanager
def _compressed(raw: IO[bytes]) -> Iterator[IO[bytes]]:
    with gzip.GzipFile(filename="", mode="wb", compresslevel=6, fileobj=raw, mtime=0) as sink:
        yield cast(IO[bytes], sink)


@contextmanager
def _as_it_is(raw: IO[bytes]) -> Iterator[IO[bytes]]:
    yield raw


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
