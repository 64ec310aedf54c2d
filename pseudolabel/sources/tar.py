"""Tar shards (WebDataset): members are read by their byte range, an archive is never fetched or unpacked as a whole.

The headers are walked once, when a run is planned; after that every row of the manifest carries the range of its image.
A bare listing names an image `ARCHIVE/MEMBER`, which is unique; annotations may say that, or `MEMBER` alone where no
two archives have a member of that name. Only regular files that are named like images count; what lies beside them
(`.json`, `.cls`, ...) is passed over.
"""

import io
import tarfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from pseudolabel.errors import InputError, RejectError
from pseudolabel.sources.archives import Archives, refuse_column
from pseudolabel.sources.names import named_like_image
from pseudolabel.sources.place import Place, parse_place
from pseudolabel.sources.store import retried

_BLOCK = 512
_MOST_HEADER = 1 << 20
_HEADER_READ = 4096  # a header, and often the small file beside the image with its header


@dataclass(slots=True)
class _Index:
    """Where the images of one archive lie; `damage` says why the walk ended before the archive did."""

    places: list[Place] = field(default_factory=list)
    damage: str | None = None


class TarShards:
    """Tar archives as a source of images."""

    def __init__(self, root: str) -> None:
        self._archives = Archives(root)
        refuse_column(self._archives)
        self._lock = threading.Lock()
        self._indexes: list[_Index] | None = None
        self._by_name: dict[str, list[Place]] | None = None

    def check(self) -> None:
        for archive in (self._archives.names[0], self._archives.names[-1]):
            self._archives.open_named(archive)

    def read(self, file_name: str, *, max_bytes: int, first_bytes: int | None = None) -> bytes:
        place = parse_place(file_name) or parse_place(self.located(file_name))
        if place is None or place.size is None:
            raise RejectError("missing", "no byte range of a tar archive")
        self._archives.require_known(place.archive)
        if place.size > max_bytes and first_bytes is None:
            raise RejectError("too_large", f"{place.size} bytes, at most {max_bytes} are read")
        if not place.size:
            raise RejectError("empty_file", "0 bytes")
        return self._range(place, place.size if first_bytes is None else min(first_bytes, place.size))

    def names(self) -> Iterator[str]:
        for archive, index in zip(self._archives.names, self._index(), strict=True):
            for place in index.places:
                yield str(Place(f"{archive}/{place.name}", place.archive, place.start, place.size))

    def damage(self) -> Iterator[tuple[str, str]]:
        for archive, index in zip(self._archives.names, self._index(), strict=True):
            if index.damage is not None:
                yield archive, index.damage

    def located(self, file_name: str) -> str:
        found = self._lookup().get(file_name, ())
        if not found:
            raise RejectError("missing", f"no member of {self._archives.shown} has this name")
        if len(found) > 1:
            where = ", ".join(place.archive for place in found[:3])
            raise RejectError("duplicate_image", f"{len(found)} members have this name ({where}); say ARCHIVE/MEMBER")
        return str(Place(file_name, found[0].archive, found[0].start, found[0].size))

    def shard_key(self, file_name: str) -> str | None:
        del file_name
        return None

    def _range(self, place: Place, wanted: int) -> bytes:
        """The member's bytes, fetched together with its header, which has to be the one that was planned."""

        def fetch() -> bytes:
            file = self._archives.open(place.archive)
            data: bytes = file.read_at(_BLOCK + wanted, place.start - _BLOCK)
            if len(data) < _BLOCK + wanted and place.start + wanted <= file.size():
                raise OSError(f"{len(data)} bytes of {_BLOCK + wanted} came")
            return data

        data = retried(f"{self._archives.path_of(place.archive)}: {place.name}", fetch)
        if _size_in_header(data[:_BLOCK]) != place.size:
            raise RejectError("changed_since_plan", f"{place.archive} has no such member there any more")
        if len(data) < _BLOCK + wanted:
            raise RejectError("undecodable", f"{place.archive} is cut off within this member")
        return data[_BLOCK:]

    def _lookup(self) -> dict[str, list[Place]]:
        with self._lock:
            if self._by_name is None:
                self._by_name = {}
                for archive, index in zip(self._archives.names, self._walked(), strict=True):
                    for place in index.places:
                        self._by_name.setdefault(place.name, []).append(place)
                        self._by_name[f"{archive}/{place.name}"] = [place]
            return self._by_name

    def _index(self) -> list[_Index]:
        with self._lock:
            return self._walked()

    def _walked(self) -> list[_Index]:
        if self._indexes is None:
            self._indexes = self._archives.of_each(self._walk)
        return self._indexes

    def _walk(self, archive: str) -> _Index:
        file = self._archives.open_named(archive)
        shown = self._archives.path_of(archive)
        index = _Index()
        reader = _Ranges(file, shown)
        try:
            with tarfile.open(fileobj=_Headers(reader, _HEADER_READ), mode="r:") as tar:
                for member in _members(tar):
                    tar.members = []  # type: ignore[attr-defined]  # tarfile would keep them all
                    if member.isreg() and not member.issparse() and named_like_image(member.name):
                        index.places.append(Place(_clean(member.name), archive, member.offset_data, member.size))
        except tarfile.TarError as error:
            if not index.places:
                raise InputError(f"{shown}: not a tar archive, or cut off before its first image ({error})") from None
            index.damage = f"cut off or damaged after {len(index.places)} images ({error})"
        return index


def _members(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """Every header, each behind the one before: a size below zero would lead back for ever."""
    before = -1
    while (member := tar.next()) is not None:
        if member.size < 0 or tar.offset <= before:
            raise tarfile.ReadError(f"a size of {member.size} in the header of {member.name!r:.80}")
        before = tar.offset
        yield member


class _Headers(io.BufferedReader):
    """Reads headers; an extended one as large as an image is none."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or not 0 <= size <= _MOST_HEADER:
            raise tarfile.ReadError(f"an extended header of {size} bytes")
        return super().read(size)


class _Ranges(io.RawIOBase):
    """An archive as tarfile wants it, each read a range of its own."""

    def __init__(self, file: Any, shown: str) -> None:
        super().__init__()
        self._file, self._shown, self._position, self._size = file, shown, 0, int(file.size())

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = base + offset
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: Any) -> int:
        start, wanted = self._position, min(len(buffer), max(0, self._size - self._position))
        data = retried(self._shown, lambda: self._file.read_at(wanted, start)) if wanted else b""
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)


def _clean(name: str) -> str:
    return name.removeprefix("./")


def _size_in_header(header: bytes) -> int | None:
    try:
        return tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape").size
    except tarfile.TarError:
        return None
