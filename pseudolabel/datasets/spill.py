"""Texts that are wanted again later, in a file without a name instead of in memory."""

import os
import tempfile
from array import array


class Spill:
    """Texts by their number; -1 stands for none."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115  (it lives as long as its owner)
        self._ends = array("q", [0])

    def add(self, text: str | None) -> int:
        """The number of a text from now on."""
        if text is None:
            return -1
        data = text.encode("utf-8", "surrogatepass")
        self._file.write(data)
        self._ends.append(self._ends[-1] + len(data))
        return len(self._ends) - 2

    def text(self, number: int) -> str | None:
        if number < 0:
            return None
        self._file.flush()
        start, end = self._ends[number], self._ends[number + 1]
        return os.pread(self._file.fileno(), end - start, start).decode("utf-8", "surrogatepass")
