"""The footers of a table's parts, without opening again what was verified and has not been touched since.

`_known/TABLE.json` holds, for each part that was once read to its last page, what the file system said of it then:
size, inode, and the times of the last change of content and of anything. Any write, rename or truncation changes one of
them, and the part is read again. Bytes that rot on the disk without a write are found where a part is used, since every
reader checks its digests, and by `pseudolabel verify`.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

from pseudolabel.files import write_text_atomically
from pseudolabel.pipelines.run.commit import DamagedPartError, Footer, read_footer, verify_part
from pseudolabel.pipelines.run.paths import RunPaths, parse_part_name

_THREADS = 8
_COMMON = ("stage", "stage_version", "num_shards", "config", "weights", "versions", "learned_from", "format_version")

Look = Footer | DamagedPartError | None  # None: there is no such part
Identity = tuple[int, int, int, int]  # bytes, inode, time of the last write in ns, of the last change in ns


class KnownParts:
    """The parts of one table; made anew for each look at the folder.

    Args:
        table: as in `RunPaths.table`.
    """

    def __init__(self, run: RunPaths, table: str, num_shards: int) -> None:
        self._run, self.table, self._num_shards = run, table, num_shards
        self._path, self.folder = run.known(table), run.table(table)
        self._there = _listed(run, table, num_shards)
        self._remembered = _read(self._path, num_shards)
        self._sound: dict[int, Footer] = {}  # seen by this object to be whole

    def __contains__(self, shard: int) -> bool:
        return shard in self._there

    def look_again(self) -> None:
        """List the folder once more; what was known stays known where it is the same file."""
        before = self._there
        self._there = _listed(self._run, self.table, self._num_shards)
        self._sound = {s: footer for s, footer in self._sound.items() if before.get(s) == self._there.get(s)}

    def verified(self, shards: Iterable[int]) -> dict[int, Look]:
        """The footers of parts that are whole: every page was read, now or before."""
        return self._look(shards, verify_part, keep=True)

    def committed(self, shards: Iterable[int]) -> dict[int, Look]:
        """The footers of parts that workers of this run have just committed, and verified in doing so."""
        return self._look(shards, read_footer, keep=True)

    def footers(self, shards: Iterable[int]) -> dict[int, Look]:
        """The footers of parts as they stand, their pages unread where nobody has read them."""
        return self._look(shards, read_footer, keep=False)

    def remember(self) -> None:
        """Write down what is known to be whole, unless that is written down already."""
        known = {shard: footer for shard in self._there if (footer := self._known(shard)) is not None}
        entries = {shard: (self._there[shard], footer) for shard, footer in known.items()}
        if entries and entries != self._remembered:
            write_text_atomically(self._path, _text(entries))

    def _look(self, shards: Iterable[int], read: Callable[[Path], Footer], *, keep: bool) -> dict[int, Look]:
        wanted = list(shards)
        found: dict[int, Look] = {shard: known for shard in wanted if (known := self._known(shard)) is not None}
        unknown = [shard for shard in wanted if shard not in found]
        with ThreadPoolExecutor(_THREADS) as pool:  # files are slow to open
            looks = pool.map(lambda shard: self._opened(shard, read), unknown)
            for shard, look in zip(unknown, looks, strict=True):
                found[shard] = look
                if keep and isinstance(look, Footer):
                    self._sound[shard] = look
        return {shard: found[shard] for shard in wanted}

    def _opened(self, shard: int, read: Callable[[Path], Footer]) -> Look:
        if shard not in self._there:
            return None
        try:
            return read(self._run.part(self.table, shard, self._num_shards))
        except FileNotFoundError:
            return None
        except DamagedPartError as error:
            return error

    def _known(self, shard: int) -> Footer | None:
        if shard in self._sound:
            return self._sound[shard]
        identity, footer = self._remembered.get(shard, (None, None))
        return footer if identity is not None and identity == self._there.get(shard) else None


def _listed(run: RunPaths, table: str, num_shards: int) -> dict[int, Identity]:
    """What the file system says of each part, from one listing, which also refreshes a network mount's cache."""
    found: dict[int, Identity] = {}
    try:
        with os.scandir(run.table(table)) as entries:
            for entry in entries:
                name = parse_part_name(entry.name)
                if name and name[1] == num_shards:
                    stat = entry.stat()
                    found[name[0]] = (stat.st_size, stat.st_ino, stat.st_mtime_ns, stat.st_ctime_ns)
    except FileNotFoundError:  # no such folder yet, or a part that somebody just replaced
        return _listed(run, table, num_shards) if run.table(table).is_dir() else {}
    return found


def _read(path: Path, num_shards: int) -> dict[int, tuple[Identity, Footer]]:
    try:
        digest, _, text = path.read_text(encoding="utf-8").partition("\n")
        if digest != _sha256(text):
            return {}
        content = json.loads(text)
        kinds = content["kinds"]
        return {
            row["shard"]: (tuple(row.pop("identity")), Footer(**kinds[row.pop("kind")], **row))
            for row in content["parts"]
            if kinds[row["kind"]]["num_shards"] == num_shards
        }
    except (OSError, ValueError, KeyError, TypeError, IndexError):  # a note, which may be lost or of another version
        return {}


def _text(entries: dict[int, tuple[Identity, Footer]]) -> str:
    """What footers have in common is written once."""
    kinds: dict[str, int] = {}
    rows = []
    for _, (identity, footer) in sorted(entries.items()):
        values = asdict(footer)
        common = json.dumps({name: values.pop(name) for name in _COMMON}, sort_keys=True)
        rows.append({**values, "kind": kinds.setdefault(common, len(kinds)), "identity": identity})
    texts = ",\n".join(json.dumps(row) for row in rows)
    text = f'{{"kinds": [{", ".join(kinds)}],\n"parts": [\n{texts}\n]}}\n'
    return f"{_sha256(text)}\n{text}"


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
