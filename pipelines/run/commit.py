"""One shard's output is committed once: temporary name, page checksums, fsync, verify, rename, fsync the folder."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pseudolabel.errors import InputError, MachineError
from pseudolabel.files import atomic_path
from pseudolabel.records import FORMAT_VERSION

FOOTER_KEY = b"pseudolabel"
ROW_GROUP_ROWS = 4096


@dataclass(frozen=True, slots=True)
class Footer:
    """What a part says about itself; no time and no host, so that equal work gives equal bytes."""

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
    format_version: int = FORMAT_VERSION


class DamagedPartError(InputError):
    """A part exists and cannot be trusted: truncated, flipped bits, or not ours."""


def commit_table(table: pa.Table, path: Path, footer: Footer) -> None:
    """Write a part so that it is either wholly there or not at all.

    Raises:
        MachineError: disk full, read-only, no permission; the temporary file is gone.
    """
    schema = table.schema.with_metadata({FOOTER_KEY: json.dumps(asdict(footer), sort_keys=True).encode()})
    with atomic_path(path) as temporary:
        with temporary.open("wb") as sink:
            pq.write_table(
                table.cast(schema),
                sink,
                compression="zstd",
                compression_level=3,
                row_group_size=ROW_GROUP_ROWS,
                write_page_checksum=True,
                store_schema=True,
            )
        if verify_part(temporary) != footer:
            raise MachineError(f"{path}: what was read back differs from what was written; check the disk")


def read_footer(path: Path) -> Footer:
    """What a part says about itself.

    Raises:
        FileNotFoundError: there is no such part.
        DamagedPartError: it has no footer, or not one of ours.
    """
    try:
        metadata = pq.read_metadata(path).metadata or {}
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise DamagedPartError(f"{path}: not a readable Parquet file ({_first_line(error)})") from None
    return _parse_footer(path, metadata)


def footer_of(table: pa.Table) -> Footer | None:
    """What the part said that a table was read from; None for one that was never committed."""
    metadata = table.schema.metadata or {}
    return _parse_footer(Path("table"), metadata) if FOOTER_KEY in metadata else None


def verify_part(path: Path) -> Footer:
    """The footer of a part whose every page was read and whose checksums hold.

    Raises:
        FileNotFoundError, DamagedPartError: as `read_footer`.
    """
    footer = read_footer(path)
    _checked(path, lambda file: [None for _ in file.iter_batches()])
    return footer


def read_part(path: Path, columns: list[str] | None = None) -> pa.Table:
    """A part's table, page checksums verified.

    Raises:
        FileNotFoundError, DamagedPartError: as `read_footer`.
    """
    table: pa.Table = _checked(path, lambda file: file.read(columns=columns))
    return table


def _checked(path: Path, read: Callable[[pq.ParquetFile], Any]) -> Any:
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            return read(file)
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DamagedPartError(f"{path}: damaged ({_first_line(error)}); delete it and run the stage again") from None


def _parse_footer(path: Path, metadata: dict[bytes, bytes]) -> Footer:
    if FOOTER_KEY not in metadata:
        raise DamagedPartError(f"{path}: a Parquet file, but not one that pseudolabel wrote")
    values = json.loads(metadata[FOOTER_KEY])
    if values.get("format_version", 0) > FORMAT_VERSION:
        raise InputError(
            f"{path}: format version {values['format_version']}, this tool knows {FORMAT_VERSION}; upgrade it"
        )
    return Footer(**values)


def _first_line(error: BaseException) -> str:
    return str(error).split("\n")[0][:160]
