"""What tar shards and Parquet files share: which archives a place names, and opening them, each once."""

import threading
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatchcase
from functools import cached_property
from typing import Any, TypeVar

from pseudolabel.errors import ConfigError, InputError, RejectError, hide_credentials
from pseudolabel.sources.place import absolute, base_names, is_url, split_archives
from pseudolabel.sources.store import list_files, open_store, retried

_OPEN_AT_ONCE = 64
_INDEXING_THREADS = 16
_T = TypeVar("_T")


class Archives:
    """The archives of one place, opened for reading ranges.

    Args:
        root: as in `pseudolabel.sources`.
    """

    def __init__(self, root: str) -> None:
        folder, pattern, self.column, query = split_archives(absolute(root))
        self.folder, self._pattern = folder, pattern
        self._url = folder + query if is_url(folder) else folder
        self.shown = hide_credentials(root)
        self._files: OrderedDict[str, Any] = OrderedDict()
        self._lock = threading.Lock()

    @cached_property
    def _store(self) -> tuple[Any, str]:
        return open_store(self._url)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Base names of all archives, sorted.

        Raises:
            InputError: there is none.
        """
        named = base_names(self._pattern)
        if named is None:
            system, path = self._store
            listed = list_files(system, path, self.shown, recursive=False)
            named = sorted(name for name in listed if fnmatchcase(name, self._pattern))
        if not named:
            raise InputError(f"{self.shown}: no archive of such a name")
        return tuple(named)

    def open(self, archive: str) -> Any:
        """An archive as a file that gives ranges; it may be used by several threads.

        Raises:
            RejectError: `missing`.
            MachineError: the store refuses us, or cannot be reached.
        """
        with self._lock:
            if archive not in self._files:
                system, path = self._store
                where = f"{path}/{archive}"
                self._files[archive] = retried(self.path_of(archive), lambda: system.open_input_file(where))
            self._files.move_to_end(archive)
            if len(self._files) > _OPEN_AT_ONCE:
                self._files.popitem(last=False)
            return self._files[archive]

    def open_named(self, archive: str) -> Any:
        """As `open`, for an archive that the place itself names.

        Raises:
            InputError: it is not there.
        """
        try:
            return self.open(archive)
        except RejectError as error:
            raise InputError(f"{self.path_of(archive)}: {error}") from None

    def path_of(self, archive: str) -> str:
        """An archive as a message names it."""
        return f"{hide_credentials(self.folder)}/{archive}"

    def of_each(self, function: Any) -> list[Any]:
        """What a function gives for every archive, in their order; several are looked at at once."""
        with ThreadPoolExecutor(_INDEXING_THREADS) as pool:
            return list(pool.map(function, self.names))

    def require_known(self, archive: str) -> None:
        """Raises RejectError `missing` for an archive that the place does not name."""
        if archive not in self.names:
            raise RejectError("missing", f"{self.shown} names no archive {archive!r}")


def refuse_column(archives: Archives) -> None:
    """Raises ConfigError where a column is named for archives that have none."""
    if archives.column:
        raise ConfigError(f"{archives.shown}: only Parquet files have columns")
