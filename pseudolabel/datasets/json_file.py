"""An untrusted JSON file, read one array element at a time, so that no list of everything is ever held."""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pseudolabel.errors import InputError, MachineError


@dataclass(frozen=True, slots=True)
class Streamed:
    """Stands for an array that was handed over element by element."""

    count: int


_DECODER = json.JSONDecoder()
_SPACE = re.compile(r"[ \t\n\r]*")
_LONG_NUMBER = re.compile(r"\d{4301}")


def read_object(path: Path, on_element: Mapping[str, Callable[[int, Any], None]]) -> dict[str, Any]:
    """The members of the object in a file.

    Args:
        path: a UTF-8 file, with or without a byte order mark.
        on_element: for a member that is an array, called with the place and value of every element in turn; the
            member's value in the result then is `Streamed`.

    Raises:
        InputError: missing, not UTF-8, not JSON, not an object, or a member that stands there twice; with line and
            column.
    """
    text = _read_text(path)
    try:
        return _members(path, text, on_element)
    except json.JSONDecodeError as error:
        raise InputError(f"{path}: line {error.lineno}, column {error.colno}: {error.msg}") from None
    except RecursionError:
        raise InputError(f"{path}: not usable: brackets are nested thousands deep") from None
    except ValueError:  # Python refuses to convert numbers of more than 4300 digits
        match = _LONG_NUMBER.search(text)
        if match is None:
            raise
        line, column = _line_column(text, match.start())
        raise InputError(f"{path}: line {line}, column {column}: a number of more than 4300 digits") from None


def _read_text(path: Path) -> str:
    try:
        data = path.read_bytes()
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    except PermissionError as error:
        raise MachineError(f"{path}: cannot be read: {error.strerror}") from None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line, column = data.count(b"\n", 0, error.start) + 1, error.start - data.rfind(b"\n", 0, error.start)
        raise InputError(f"{path}: line {line}, column {column}: not UTF-8 text") from None


def _members(path: Path, text: str, on_element: Mapping[str, Callable[[int, Any], None]]) -> dict[str, Any]:
    position = _expect(text, _skip(text, 0), "{", "an object")
    members: dict[str, Any] = {}
    if text[position : position + 1] == "}":
        return _at_end(text, position + 1, members)
    while True:
        start = position
        name, position = _decoded_name(text, position)
        if name in members:
            line, column = _line_column(text, start)
            raise InputError(f"{path}: line {line}, column {column}: {name!r} stands there twice")
        position = _expect(text, position, ":", "a colon")
        members[name], position = _member(text, position, on_element.get(name))
        if text[position : position + 1] == "}":
            return _at_end(text, position + 1, members)
        position = _expect(text, position, ",", "a comma or a closing brace")


def _member(text: str, position: int, on_element: Callable[[int, Any], None] | None) -> tuple[Any, int]:
    if on_element is None or text[position : position + 1] != "[":
        value, position = _DECODER.raw_decode(text, position)
        return value, _skip(text, position)
    count, position = _elements(text, _skip(text, position + 1), on_element)
    return Streamed(count), position


def _elements(text: str, position: int, on_element: Callable[[int, Any], None]) -> tuple[int, int]:
    """Hands over every element; returns their number and where the text goes on behind the bracket."""
    if text[position : position + 1] == "]":
        return 0, _skip(text, position + 1)
    count = 0
    while True:
        value, position = _DECODER.raw_decode(text, position)
        on_element(count, value)
        count += 1
        position = _skip(text, position)
        if text[position : position + 1] == "]":
            return count, _skip(text, position + 1)
        position = _expect(text, position, ",", "a comma or a closing bracket")


def _decoded_name(text: str, position: int) -> tuple[str, int]:
    if text[position : position + 1] != '"':
        raise json.JSONDecodeError("expected a name in double quotes", text, position)
    name, position = _DECODER.raw_decode(text, position)
    return name, _skip(text, position)


def _at_end(text: str, position: int, members: dict[str, Any]) -> dict[str, Any]:
    position = _skip(text, position)
    if position != len(text):
        raise json.JSONDecodeError("more text behind the object's end", text, position)
    return members


def _expect(text: str, position: int, character: str, name: str) -> int:
    if text[position : position + 1] != character:
        raise json.JSONDecodeError(f"expected {name}", text, position)
    return _skip(text, position + 1)


def _skip(text: str, position: int) -> int:
    match = _SPACE.match(text, position)
    return match.end() if match else position


def _line_column(text: str, position: int) -> tuple[int, int]:
    return text.count("\n", 0, position) + 1, position - text.rfind("\n", 0, position)
