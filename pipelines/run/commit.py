"""One shard's output is committed once: temporary name, digests, fsync, verify, rename, fsync the folder.

Every byte of a part stands under one of two digests in its Parquet footer: `content` is of all that stands before the
footer, `footer` of the footer itself (its own value counted as zeros). So the footer alone tells what the content must
be, a flipped bit anywhere is noticed, and a part that another tool wrote anew is known by its content even where it
kept our footer. Checksums of pages are written, too, for readers that know nothing of this.
"""

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, get_origin, get_type_hints

import pyarrow as pa
import pyarrow.parquet as pq

from pseudolabel.errors import InputError, MachineError
from pseudolabel.files import atomic_path
from pseudolabel.pipelines.run.conservation import Counts
from pseudolabel.records import FORMAT_VERSION

FOOTER_KEY = b"pseudolabel"
_DIGESTS_KEY = b"pseudolabel_digests"
_ZEROS = b"0" * 64
_DIGESTS = b"content:%s footer:%s"
_MAGIC = b"PAR1"
ROW_GROUP_ROWS = 4096


@dataclass(frozen=True, slots=True)
class Footer:
    """What a part says about itself; no time and no host, so that equal work gives equal bytes.

    `content` is the digest of its pages; it is told by reading, not by who writes.
    """

    stage: str
    stage_version: int
    fingerprint: str
    shard: int
    num_shards: int
    n_in: int
    n_ok: int
    n_rejected: int
    config: dict[str, Any] = field(default_factory=dict)
    weights: dict[str, str] = field(default_factory=dict)
    inputs: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    learned_from: dict[str, int] = field(default_factory=dict)  # rounds of its model on each candidate table
    counts: dict[str, Any] = field(default_factory=dict)  # images and objects, see `conservation.Counts`
    format_version: int = FORMAT_VERSION
    content: str = field(default="", compare=False)

    @property
    def identity(self) -> str:
        """What stages that read the part depend on: why it was made, and what is in it."""
        return f"{self.fingerprint[:32]}.{self.content[:32]}"

    @property
    def counted(self) -> Counts:
        """Images and objects of the part; nothing where nobody counted."""
        return Counts.from_dict(self.counts) if self.counts else Counts()


_TYPES = {name: get_origin(kind) or kind for name, kind in get_type_hints(Footer).items()}


class DamagedPartError(InputError):
    """A part exists and cannot be trusted: truncated, flipped bits, or not ours."""


def commit_table(table: pa.Table, path: Path, footer: Footer) -> None:
    """Write a part so that it is either wholly there or not at all.

    Raises:
        MachineError: disk full, read-only, no permission; the temporary file is gone.
    """
    with atomic_path(path) as temporary:
        temporary.write_bytes(_serialized(table, footer))
        if verify_part(temporary) != footer:
            raise MachineError(f"{path}: what was read back differs from what was written; check the disk")


def _serialized(table: pa.Table, footer: Footer) -> bytes:
    """The part as bytes, its digests filled in."""
    values = asdict(footer)
    del values["content"]
    said = {FOOTER_KEY: json.dumps(values, sort_keys=True).encode(), _DIGESTS_KEY: _DIGESTS % (_ZEROS, _ZEROS)}
    sink = pa.BufferOutputStream()
    pq.write_table(
        table.cast(table.schema.with_metadata(said)),
        sink,
        compression="zstd",
        compression_level=3,
        row_group_size=ROW_GROUP_ROWS,
        write_page_checksum=True,
        store_schema=True,
    )
    data = memoryview(sink.getvalue())
    length = int.from_bytes(data[-8:-4], "little") + 8
    pages, end = data[:-length], bytes(data[-length:])
    assert end.count(_DIGESTS % (_ZEROS, _ZEROS)) == 1, "Parquet keeps what its metadata is told, as it stands"
    content = _digest(pages)
    end = end.replace(_DIGESTS % (_ZEROS, _ZEROS), _DIGESTS % (content, _ZEROS))
    end = end.replace(_DIGESTS % (content, _ZEROS), _DIGESTS % (content, _digest(end)))
    return b"".join((pages, end))


def read_footer(path: Path) -> Footer:
    """What a part says about itself; its pages are not read.

    Raises:
        FileNotFoundError: there is no such part.
        DamagedPartError: it has no footer, not one of ours, or not the one that was written.
    """
    return _parse_end(path, _read_end(path))


def footer_of(table: pa.Table) -> Footer | None:
    """What the part said that a table was read from; None for one that was never committed."""
    metadata = table.schema.metadata or {}
    return _parse_footer(Path("table"), metadata) if FOOTER_KEY in metadata else None


def verify_part(path: Path) -> Footer:
    """The footer of a part of which every byte was read and found to be what was written.

    Raises:
        FileNotFoundError, DamagedPartError: as `read_footer`.
    """
    return _whole(path)[0]


def read_part(path: Path, columns: list[str] | None = None) -> pa.Table:
    """A part's table, every byte of the part checked.

    Raises:
        FileNotFoundError, DamagedPartError: as `read_footer`.
    """
    _, data = _whole(path)
    with damage_named(path), pq.ParquetFile(pa.BufferReader(data)) as file:
        return file.read(columns=columns)


@contextmanager
def damage_named(path: Path) -> Iterator[None]:
    """Whatever reading a file of a run leads to, where its content is not what was written, is that file's damage.

    Raises:
        DamagedPartError: naming the file.
    """
    try:
        yield
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError, ValueError, TypeError, KeyError, AttributeError, IndexError) as error:
        raise DamagedPartError(f"{path}: damaged ({_first_line(error)}); delete it and run the stage again") from None


def _whole(path: Path) -> tuple[Footer, bytes]:
    with damage_named(path):
        data = path.read_bytes()
    end = _end_of(path, data, len(data))
    footer = _parse_end(path, end)
    if _digest(memoryview(data)[: -len(end)]).decode() != footer.content:
        raise _not_as_written(path)
    return footer, data


def _read_end(path: Path) -> bytes:
    with damage_named(path), path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 8))
        last = file.read(8)
        wanted = min(size, int.from_bytes(last[:4], "little") + 8)
        file.seek(size - wanted)
        return _end_of(path, file.read(wanted), size)


def _end_of(path: Path, data: bytes, size: int) -> bytes:
    """The Parquet footer with its length and magic, from a file's last bytes."""
    length = int.from_bytes(data[-8:-4], "little") + 8
    if len(data) < 12 or data[-4:] != _MAGIC or length > len(data) or length + len(_MAGIC) > size:
        raise DamagedPartError(f"{path}: not a readable Parquet file; delete it and run the stage again")
    return data[-length:]


def _parse_end(path: Path, end: bytes) -> Footer:
    with damage_named(path):
        metadata = pq.read_metadata(pa.BufferReader(_MAGIC + end)).metadata or {}
    footer = _parse_footer(path, metadata)
    digests = metadata.get(_DIGESTS_KEY, b"")
    content, own = digests[8:72], digests[-64:]
    if digests != _DIGESTS % (content, own) or _digest(end.replace(digests, _DIGESTS % (content, _ZEROS))) != own:
        raise _not_as_written(path)
    return replace(footer, content=content.decode("ascii", "replace"))


def _not_as_written(path: Path) -> DamagedPartError:
    return DamagedPartError(
        f"{path}: damaged: its content is not what was written (a flipped bit, or another tool wrote it anew); "
        "delete it and run the stage again"
    )


def _digest(data: bytes | memoryview) -> bytes:
    return hashlib.blake2b(data, digest_size=32).hexdigest().encode()


def _parse_footer(path: Path, metadata: dict[bytes, bytes]) -> Footer:
    if FOOTER_KEY not in metadata:
        raise DamagedPartError(f"{path}: a Parquet file, but not one that pseudolabel wrote")
    with damage_named(path):
        values = json.loads(metadata[FOOTER_KEY])
        version = values.get("format_version", 0)
        if isinstance(version, int) and version > FORMAT_VERSION:
            raise InputError(f"{path}: format version {version}, this tool knows {FORMAT_VERSION}; upgrade it")
        footer = Footer(**values)
        _check_types(footer)
        return footer


def _check_types(footer: Footer) -> None:
    for name, kind in _TYPES.items():
        if not isinstance(getattr(footer, name), kind):
            raise TypeError(f"{name} is {getattr(footer, name)!r:.60}")
    _ = footer.counted


def _first_line(error: BaseException) -> str:
    return str(error).split("\n")[0][:160]
