"""Ids that must all be different, checked in memory that does not grow with their number."""

from array import array
from typing import IO

import numpy as np

from pseudolabel.errors import InputError

_BUCKETS = 64  # by the lowest bits of an id
_WAITING = 4096  # ids of a bucket in memory
_ID_BYTES = 8


class UniqueIds:
    """Hands out ids: those that rows bring, or 1, 2, 3 where no row brings one.

    Ids that were brought go to a file, in pieces of one bucket each; equal ids meet in the same bucket, and
    the check holds one bucket after the other in memory.

    Args:
        what: what they are ids of, for the message.
        spool: an empty temporary file, open for writing and reading.
    """

    def __init__(self, what: str, spool: IO[bytes]) -> None:
        self.what = what
        self.count = 0
        self._made = 0
        self._spool = spool
        self._waiting = [array("q") for _ in range(_BUCKETS)]
        self._pieces = [array("q") for _ in range(_BUCKETS)]  # where each bucket's pieces begin in the file

    def next(self, brought: int | None) -> int:
        """The id of the next row."""
        self.count += 1
        if brought is None:
            self._made += 1
            return self._made
        waiting = self._waiting[brought % _BUCKETS]
        waiting.append(brought)
        if len(waiting) == _WAITING:
            self._put_away(brought % _BUCKETS)
        return brought

    def check(self) -> None:
        """Raises InputError unless all ids are different."""
        brought = self.count - self._made
        if self._made and brought:
            raise InputError(f"{self._made} {self.what}s have no id and {brought} have one: give all or none")
        for bucket in range(_BUCKETS):
            values, counts = np.unique(self._ids_of(bucket), return_counts=True)
            if (counts > 1).any():
                raise InputError(f"{self.what} id {values[counts > 1][0]} occurs {counts.max()} times")

    def _put_away(self, bucket: int) -> None:
        self._pieces[bucket].append(self._spool.seek(0, 2))
        self._spool.write(self._waiting[bucket].tobytes())
        self._waiting[bucket] = array("q")

    def _ids_of(self, bucket: int) -> np.ndarray:
        pieces = [np.array(self._waiting[bucket], dtype=np.int64)]
        for start in self._pieces[bucket]:
            self._spool.seek(start)
            pieces.append(np.frombuffer(self._spool.read(_WAITING * _ID_BYTES), dtype=np.int64))
        return np.concatenate(pieces)
