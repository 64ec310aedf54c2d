"""Untrusted text files: unpacked from gzip, decoded by their byte order mark, handed over piece by piece."""

import codecs
import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from pseudolabel.errors import InputError, MachineError

PIECE_BYTES = 1 << 20
MOST_UNPACKED_BYTES = 4 << 30  # of a gzipped file, so that a small one cannot fill the machine
_GZIP = b"\x1f\x8b"
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def text_pieces(path: Path) -> Iterator[str]:
    """The text of a file, plain or gzipped whatever its suffix, as pieces of about a megabyte.

    Raises:
        InputError: it cannot be read, is an archive, is cut off, unpacks to more than 4 GiB, or is in an encoding that
            cannot be told; with line and column.
        MachineError: the machine refuses.
    """
    with _opened(path) as file:
        head = file.read(4)
        encoding = encoding_of(head)
        decoder = codecs.getincrementaldecoder(encoding)()
        line, column, data = 1, 1, head + _read(path, file)
        while True:
            try:
                text = decoder.decode(data, final=len(data) == 0)
            except UnicodeDecodeError as error:
                before = error.object[: error.start].decode("latin-1")
                line, column = moved(line, column, before)
                raise InputError(f"{path}: line {line}, column {column}: {_not_text(encoding)}") from None
            if not data:
                yield text
                return
            line, column = moved(line, column, text)
            yield text
            data = _read(path, file)


def read_text(path: Path, *, max_bytes: int | None = None) -> str:
    """The whole text, or what its first `max_bytes` or so hold; raises as `text_pieces`."""
    pieces, size = [], 0
    for piece in text_pieces(path):
        pieces.append(piece)
        size += len(piece)
        if max_bytes is not None and size >= max_bytes:
            break
    return "".join(pieces)


def encoding_of(head: bytes) -> str:
    """The encoding that a file's first four bytes tell: a byte order mark, or the zeros of ASCII in wider letters."""
    for mark, name in _MARKS:
        if head.startswith(mark):
            return name
    if len(head) >= 2 and not head[0] and head[1]:
        return "utf-16-be"
    return "utf-16-le" if len(head) >= 2 and head[0] and not head[1] else "utf-8"


def moved(line: int, column: int, text: str) -> tuple[int, int]:
    """Line and column behind a text that begins at those."""
    breaks = text.count("\n")
    return line + breaks, column + len(text) if not breaks else len(text) - text.rfind("\n")


def _opened(path: Path) -> IO[bytes] | gzip.GzipFile:
    try:
        if path.exists() and not path.is_file():  # a pipe would block
            raise InputError(f"{path}: cannot be read: not a regular file")
        file = path.open("rb")
        head = file.read(4)
        file.seek(0)
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    except OSError as error:
        raise MachineError(f"{path}: cannot be read: {error.strerror}") from None
    if head.startswith(b"PK\x03\x04"):
        file.close()
        raise InputError(f"{path}: this is a zip archive; unpack it and give the file or folder inside")
    return gzip.GzipFile(fileobj=file, mode="rb") if head.startswith(_GZIP) else file


def _read(path: Path, file: IO[bytes] | gzip.GzipFile) -> bytes:
    if isinstance(file, gzip.GzipFile) and file.tell() > MOST_UNPACKED_BYTES:
        raise InputError(f"{path}: unpacks to more than {MOST_UNPACKED_BYTES} bytes; unpack it yourself, or split it")
    try:
        return file.read(PIECE_BYTES)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise InputError(f"{path}: the gzip file is damaged or cut off ({error})") from None


def _not_text(encoding: str) -> str:
    if not encoding.startswith("utf-8"):
        return f"not {encoding.upper()} text"
    return "not UTF-8 text; convert it with  iconv -f ENCODING -t UTF-8  (GB18030 and CP1252 are frequent)"
