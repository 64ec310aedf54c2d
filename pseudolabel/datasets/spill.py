"""Texts that are wanted again later, in a file without a name instead of in memory."""

import os
import tempfile
from array import array

_WRITTEN_AT_BYTES = 1 << 20


class Spill:
    """Texts by their number; -1 stands for none. All are added before the first is read."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115  (it lives as long as its owner)
        self._ends = array("q", [0])
        self._waiting: list[str] = []
        self._size = self._written = 0

    def add(self, text: str | None) -> int:
        """The number of a text from now on."""
        if text is None:
            return -1
        self._waiting.append(text)
        self._size += len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
        self._ends.append(self._size)
        if self._size - self._written > _WRITTEN_AT_BYTES:
            self._write()
        return len(self._ends) - 2

    def text(self, number: int) -> str | None:
        """The text of a number."""
        if number < 0:
            return None
        if self._waiting:
            self._write()
        start, end = self._ends[number], self._ends[number + 1]
        return os.pread(self._file.fileno(), end - start, start).decode("utf-8", "surrogatepass")

    def _write(self) -> None:
        data = memoryview("".join(self._waiting).encode("utf-8", "surrogatepass"))
        self._waiting.clear()
        while data:
            data = data[self._file.write(data) :]
        self._written = self._size
