"""Files that are wholly there or not at all, compressed where their name says so."""

import gzip
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

from pseudolabel.files import atomic_file


@contextmanager
def atomic_sink(path: Path) -> Iterator[IO[bytes]]:
    """A binary file that takes the name `path` when the block ends well, and vanishes when not.

    A name that ends in `.gz` is compressed, with no time stamp in it, so that equal content gives equal bytes.

    Raises:
        MachineError: the folder or the disk refuses.
    """
    with atomic_file(path) as raw:
        if path.suffix != ".gz":
            yield raw
            return
        with gzip.GzipFile(filename="", mode="wb", compresslevel=6, fileobj=raw, mtime=0) as sink:
            yield cast(IO[bytes], sink)
