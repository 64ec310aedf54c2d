"""An untrusted JSON file, read one array element at a time from a window that moves over the text.

Neither the text nor a list of everything is ever held. Of an element that is an object, one member can be spared: a
list of numbers, such as COCO's polygons, comes back as its text (`Raw`) and is never parsed.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pseudolabel.datasets.text_file import moved, text_pieces
from pseudolabel.errors import InputError

OnElement = Callable[[int, Any], None]


class Raw(str):
    """The JSON text of a list that was not parsed."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Streamed:
    """Stands for an array that was handed over element by element."""

    count: int


_DECODE = json.JSONDecoder().raw_decode
_SCAN = json.JSONDecoder().scan_once  # type: ignore[attr-defined]
_NEXT = re.compile(r"[ \t\n\r]*,[ \t\n\r]*")
_SPACE = re.compile(r"[ \t\n\r]*")
_LONG_NUMBER = re.compile(r"\d{4301}")
_TAIL = 16  # where the window ends inside a number, a literal or an escape, the fault stands this close to its end
_DROPPED_AT = 1 << 20


def read_object(path: Path, on_element: Mapping[str, OnElement], *, spare: str | None = None) -> dict[str, Any]:
    """The members of the object in a file.

    Args:
        path: a text file, plain or gzipped; see `text_file`.
        on_element: for a member that is an array, called with the place and value of every element in turn; the
            member's value in the result then is `Streamed`.
        spare: name of a member of such elements that comes as `Raw` where it is a list of numbers.

    Raises:
        InputError: missing, not text, not JSON, not an object, or a member that stands there twice; with line and
            column.
    """
    window = _Window(path, _sparing(spare))
    with _FaultsNamed(window):
        return _members(window, on_element)


def read_array(path: Path, on_element: OnElement) -> int:
    """Hands over every element of the array in a file; returns how many.

    Raises:
        InputError: as `read_object`, for a file that holds no array.
    """
    window = _Window(path, None)
    with _FaultsNamed(window):
        window.expect("[", "an array")
        count = _elements(window, on_element)
        window.expect_end()
        return count


def first_members(text: str) -> tuple[dict[str, Any], bool]:
    """What the beginning of a JSON text shows: members of its object, or of the first object in its array.

    A value that goes on behind the text is there as None, or as a list of its first element.

    Returns:
        The members, and whether the text is an array.
    """
    position = _skip(text, 0)
    is_array = text[position : position + 1] == "["
    position = _skip(text, position + 1) if is_array else position
    members: dict[str, Any] = {}
    if text[position : position + 1] != "{":
        return members, is_array
    position = _skip(text, position + 1)
    try:
        while text[position : position + 1] == '"':
            name, position = _DECODE(text, position)
            position = _skip(text, position)
            position = _skip(text, position + 1)
            members[name] = _first_of(text, position)
            members[name], position = _DECODE(text, position)
            position = _skip(text, position)
            position = _skip(text, position + 1)
    except (json.JSONDecodeError, RecursionError, ValueError):  # it goes on behind the text, or a reader will tell
        pass
    return members, is_array


def _first_of(text: str, position: int) -> list[Any] | None:
    if text[position : position + 1] != "[":
        return None
    try:
        return [_DECODE(text, _skip(text, position + 1))[0]]
    except (json.JSONDecodeError, ValueError):
        return None


class _Window:
    """A part of a file's text and a position in it; `more` lengthens it, what is passed is dropped."""

    def __init__(self, path: Path, spare: re.Pattern[str] | None) -> None:
        self.path, self.text, self.position = path, "", 0
        self._pieces: Iterator[str] = text_pieces(path)
        self._line, self._column = 1, 1
        self._spare = spare

    def more(self) -> bool:
        """Lengthens the text, to at least twice of what is still wanted; False at the file's end."""
        wanted, pieces = len(self.text) - self.position, []
        for piece in self._pieces:
            pieces.append(piece)
            wanted -= len(piece)
            if piece and wanted <= 0:
                break
        self.text += "".join(pieces)
        return any(pieces)

    def next_character(self) -> str:
        """The next character that is no space, empty at the file's end."""
        while True:
            match = _SPACE.match(self.text, self.position)
            self.position = match.end() if match else self.position
            if self.position < len(self.text):
                return self.text[self.position]
            self._drop()
            if not self.more():
                return ""

    def expect(self, character: str, name: str) -> None:
        if self.next_character() != character:
            raise json.JSONDecodeError(f"expected {name}", self.text, self.position)
        self.position += 1

    def expect_end(self) -> None:
        if self.next_character():
            raise json.JSONDecodeError("more text behind the end", self.text, self.position)

    def value(self) -> Any:
        """The value at the next character."""
        self.next_character()
        while True:
            try:
                value, end = _DECODE(self.text, self.position)
            except json.JSONDecodeError as error:
                cut_off = error.msg.startswith("Unterminated") or error.pos > len(self.text) - _TAIL
                if not (cut_off and self.more()):
                    raise
                continue
            if end < len(self.text) or not self.more():  # a number may go on behind the window
                self.position = end
                return value

    def element(self) -> Any:
        """As `value`, with the member that is to be spared as `Raw`."""
        if self.position > _DROPPED_AT:
            self._drop()
        match = self._spare.match(self.text, self.position) if self._spare else None
        if match is None:
            return self.value()
        before, name, spared, behind = match.groups()
        try:
            value, _ = _SCAN(f"{{{before}null{behind}}}", 0)
        except (json.JSONDecodeError, StopIteration):  # a brace or bracket stands inside a string
            return self.value()
        value[name] = Raw(spared)
        self.position = match.end()
        return value

    def passes_comma(self) -> bool:
        """Passes a comma and the spaces around it, if they are in the window and more stands behind them."""
        match = _NEXT.match(self.text, self.position)
        if match is None or match.end() == len(self.text):
            return False
        self.position = match.end()
        return True

    def line_column(self, position: int) -> tuple[int, int]:
        return moved(self._line, self._column, self.text[:position])

    def _drop(self) -> None:
        self._line, self._column = self.line_column(self.position)
        self.text, self.position = self.text[self.position :], 0


def _sparing(name: str | None) -> re.Pattern[str] | None:
    """An object without objects inside, cut before and behind one list of its; never beyond the object's own end.

    What is before and behind has to parse with null in between, which a wrong cut does not.
    """
    if name is None:
        return None
    return re.compile(rf'\{{([^{{}}]*?"({re.escape(name)})"\s*:\s*)(\[[^{{}}"]*\])([^{{}}]*)\}}')


class _FaultsNamed:
    """Turns what goes wrong inside into an `InputError` with file, line and column."""

    def __init__(self, window: _Window) -> None:
        self._window = window

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        window = self._window
        if isinstance(error, json.JSONDecodeError):
            pos = error.pos if error.doc is window.text or error.doc == window.text else window.position
            line, column = window.line_column(pos)
            raise InputError(f"{window.path}: line {line}, column {column}: {error.msg}") from None
        if isinstance(error, RecursionError):
            raise InputError(f"{window.path}: not usable: brackets are nested thousands deep") from None
        match = _LONG_NUMBER.search(window.text) if isinstance(error, ValueError) else None
        if match is not None:  # Python refuses to convert such numbers
            line, column = window.line_column(match.start())
            raise InputError(
                f"{window.path}: line {line}, column {column}: a number of more than 4300 digits"
            ) from None


def _members(window: _Window, on_element: Mapping[str, OnElement]) -> dict[str, Any]:
    window.expect("{", "an object")
    members: dict[str, Any] = {}
    while window.next_character() != "}" or members:
        if window.next_character() != '"':
            raise json.JSONDecodeError("expected a name in double quotes", window.text, window.position)
        where = window.line_column(window.position)
        name = window.value()
        if name in members:
            raise InputError(f"{window.path}: line {where[0]}, column {where[1]}: {name!r} stands there twice")
        window.expect(":", "a colon")
        members[name] = _member(window, on_element.get(name))
        if window.next_character() == "}":
            break
        window.expect(",", "a comma or a closing brace")
    window.position += 1
    window.expect_end()
    return members


def _member(window: _Window, on_element: OnElement | None) -> Any:
    if on_element is None or window.next_character() != "[":
        return window.value()
    window.position += 1
    return Streamed(_elements(window, on_element))


def _elements(window: _Window, on_element: OnElement) -> int:
    """Hands over every element; returns their number, the window then stands behind the bracket."""
    count = 0
    if window.next_character() == "]":
        window.position += 1
        return count
    while True:
        on_element(count, window.element())
        count += 1
        if window.passes_comma():
            continue
        if window.next_character() == "]":
            window.position += 1
            return count
        window.expect(",", "a comma or a closing bracket")
        window.next_character()


def _skip(text: str, position: int) -> int:
    match = _SPACE.match(text, position)
    return match.end() if match else position
