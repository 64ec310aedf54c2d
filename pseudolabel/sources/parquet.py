"""Parquet files with embedded images, as Hugging Face writes them: one column is read, row group by row group.

An image is bytes, or a struct of `bytes` and `path` (`datasets.Image`); `path`, where it is unique, is a name by which
annotations may call the image. A bare listing names an image `FILE/ROW`, eight digits from 0. Bytes are the unit of a
page and not of a request, so the images of a row group are kept in one shard of a run (`shard_key`) and the column of
the row group is fetched once for all of them.
"""

import bisect
import threading
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pseudolabel.errors import InputError, RejectError
from pseudolabel.sources.archives import Archives
from pseudolabel.sources.place import Place, parse_place
from pseudolabel.sources.store import retried

_GROUPS_KEPT = 2
_LARGEST_GROUP_BYTES = 2 << 30


@dataclass(frozen=True, slots=True)
class _File:
    """One Parquet file: the first row of each row group, and behind the last one the number of rows."""

    name: str
    starts: tuple[int, ...]
    handle: Any

    @property
    def rows(self) -> int:
        return self.starts[-1]

    def group_of(self, row: int) -> int:
        return bisect.bisect_right(self.starts, row) - 1


class ParquetImages:
    """Parquet files as a source of images."""

    def __init__(self, root: str) -> None:
        self._archives = Archives(root)
        self._lock = threading.RLock()
        self._files: dict[str, _File] = {}
        self._groups: OrderedDict[tuple[str, int], pa.ChunkedArray] = OrderedDict()
        self._by_name: dict[str, list[Place]] | None = None
        self._column: tuple[str, bool] | None = None

    def check(self) -> None:
        for archive in (self._archives.names[0], self._archives.names[-1]):
            self._check_column(self._file(archive))

    def read(self, file_name: str, *, max_bytes: int, first_bytes: int | None = None) -> bytes:
        place = parse_place(file_name) or parse_place(self.located(file_name))
        if place is None or place.size is not None:
            raise RejectError("missing", "no row of a Parquet file")
        self._archives.require_known(place.archive)
        file = self._file(place.archive)
        if place.start >= file.rows:
            raise RejectError("changed_since_plan", f"{place.archive} has {file.rows} rows, wanted is {place.start}")
        group = file.group_of(place.start)
        with self._lock:
            cell = self._images_of(file, group)[place.start - file.starts[group]]
        return _checked(cell, max_bytes, first_bytes)

    def names(self) -> Iterator[str]:
        for archive in self._archives.names:
            for row in range(self._file(archive).rows):
                yield str(Place(f"{archive}/{row:08d}", archive, row))

    def damage(self) -> Iterator[tuple[str, str]]:
        return iter(())

    def schema(self) -> pa.Schema:
        """Of the first file."""
        schema: pa.Schema = self._file(self._archives.names[0]).handle.schema_arrow
        return schema

    def columns(self, names: list[str]) -> Iterator[tuple[str, dict[str, Any]]]:
        """The name of every image, as `names` gives it, with the cells of some other columns beside it."""
        for archive in self._archives.names:
            file = self._file(archive)
            for group, first in enumerate(file.starts[:-1]):
                table = retried(
                    self._archives.path_of(archive),
                    lambda file=file, group=group: file.handle.read_row_group(group, columns=names, use_threads=False),
                )
                for row, cells in enumerate(table.to_pylist(), first):
                    yield str(Place(f"{archive}/{row:08d}", archive, row)), cells

    def located(self, file_name: str) -> str:
        found = self._lookup().get(file_name, ())
        if not found:
            raise RejectError("missing", f"no row of {self._archives.shown} has this path")
        if len(found) > 1:
            raise RejectError("duplicate_image", f"{len(found)} rows have this path; say FILE/ROW")
        return str(Place(file_name, found[0].archive, found[0].start))

    def shard_key(self, file_name: str) -> str | None:
        place = parse_place(file_name)
        return f"{place.archive}:{self._file(place.archive).group_of(place.start)}" if place else None

    def _lookup(self) -> dict[str, list[Place]]:
        with self._lock:
            if self._by_name is None:
                self._by_name = {}
                for archive in self._archives.names:
                    for row, path in enumerate(self._paths(self._file(archive))):
                        place = Place(path or "", archive, row)
                        self._by_name[f"{archive}/{row:08d}"] = [place]
                        if path:
                            self._by_name.setdefault(path, []).append(place)
            return self._by_name

    def _paths(self, file: _File) -> list[str | None]:
        column, is_struct = self._check_column(file)
        if not is_struct or "path" not in [field.name for field in file.handle.schema_arrow.field(column).type]:
            return [None] * file.rows
        read = retried(
            self._archives.path_of(file.name), lambda: file.handle.read(columns=[f"{column}.path"], use_threads=False)
        )
        return [cell["path"] if cell else None for cell in read[column].to_pylist()]

    def _images_of(self, file: _File, group: int) -> Any:
        """The column of a row group, fetched or as it was kept."""
        key = (file.name, group)
        if key not in self._groups:
            self._groups[key] = self._fetched(file, group)
            if len(self._groups) > _GROUPS_KEPT:
                self._groups.popitem(last=False)
        self._groups.move_to_end(key)
        return self._groups[key]

    def _fetched(self, file: _File, group: int) -> Any:
        column, is_struct = self._check_column(file)
        wanted = f"{column}.bytes" if is_struct else column
        shown = self._archives.path_of(file.name)
        size = _size_bytes(file.handle.metadata.row_group(group), wanted)
        if size > _LARGEST_GROUP_BYTES:
            raise InputError(f"{shown}: row group {group} has {size / 2**30:.1f} GiB of images; write smaller ones")
        table = retried(shown, lambda: file.handle.read_row_group(group, columns=[wanted], use_threads=False))
        cells = table[column].combine_chunks()
        return cells.field("bytes") if is_struct else cells

    def _check_column(self, file: _File) -> tuple[str, bool]:
        """Name of the column of images, and whether it is a struct with `bytes`."""
        schema = file.handle.schema_arrow
        kinds = {field.name: kind for field in schema if (kind := _kind(field.type)) is not None}
        wanted = self._archives.column
        if not wanted:
            structs = [name for name, is_struct in kinds.items() if is_struct]
            usable = structs or list(kinds)
            if len(usable) == 1:
                return usable[0], kinds[usable[0]]
        elif wanted in kinds:
            return wanted, kinds[wanted]
        raise InputError(f"{self._archives.path_of(file.name)}: {_column_problem(wanted, list(kinds), schema.names)}")

    def _file(self, archive: str) -> _File:
        with self._lock:
            if archive not in self._files:
                self._files[archive] = self._opened(archive)
            return self._files[archive]

    def _opened(self, archive: str) -> _File:
        shown = self._archives.path_of(archive)
        source = self._archives.open_named(archive)
        try:
            handle = retried(shown, lambda: pq.ParquetFile(source))
        except pa.ArrowInvalid as error:
            raise InputError(f"{shown}: not a Parquet file ({' '.join(str(error).split())[:120]})") from None
        starts = [0]
        for group in range(handle.metadata.num_row_groups):
            starts.append(starts[-1] + handle.metadata.row_group(group).num_rows)
        return _File(archive, tuple(starts), handle)


def _kind(type_: pa.DataType) -> bool | None:
    """Whether a type is a struct with `bytes` (True) or bytes alone (False); None for all others."""
    if pa.types.is_struct(type_):
        inner = {field.name: field.type for field in type_}
        return True if "bytes" in inner and _kind(inner["bytes"]) is False else None
    return False if pa.types.is_binary(type_) or pa.types.is_large_binary(type_) else None


def _column_problem(wanted: str, usable: list[str], names: list[str]) -> str:
    listed = ", ".join(names)
    if wanted:
        return f"no column {wanted!r} with images (columns: {listed})"
    if usable:
        return f"{len(usable)} columns may hold images ({', '.join(usable)}); name one with  FILE.parquet#COLUMN"
    return f"no column holds images, bytes or a struct with bytes (columns: {listed})"


def _size_bytes(group: Any, wanted: str) -> int:
    chunks = (group.column(place) for place in range(group.num_columns))
    return sum(chunk.total_uncompressed_size for chunk in chunks if chunk.path_in_schema == wanted)


def _checked(cell: Any, max_bytes: int, first_bytes: int | None) -> bytes:
    if not cell.is_valid:
        raise RejectError("missing", "the row has no embedded bytes")
    size = len(cell.as_buffer())
    if not size:
        raise RejectError("empty_file", "0 bytes")
    if size > max_bytes and first_bytes is None:
        raise RejectError("too_large", f"{size} bytes, at most {max_bytes} are read")
    data: bytes = cell.as_buffer().to_pybytes()
    return data if first_bytes is None else data[:first_bytes]
