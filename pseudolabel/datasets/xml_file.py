"""Untrusted XML files."""

import re
import xml.etree.ElementTree as ET
from pathlib import Path

from pseudolabel.datasets.text_file import encoding_of
from pseudolabel.errors import RejectError
from pseudolabel.images import read_file

_DECLARED = re.compile(rb"<\?xml[^>]*?encoding\s*=\s*[\"']([A-Za-z0-9._-]+)[\"'][^>]*\?>")
_DECLARATION = re.compile(r"^\s*<\?xml[^>]*\?>")


def read_xml(folder: Path, name: str, *, max_bytes: int) -> ET.Element:
    """The root element of a file below a folder; a document type, the only way to define entities, is refused.

    Raises:
        RejectError: `bad_record`, or why the file cannot be read.
    """
    data = read_file(folder, name, max_bytes=max_bytes)
    declared = _DECLARED.search(data[:200])
    encoding = declared[1].decode("ascii") if declared else encoding_of(data[:4])
    if encoding.lower() in ("utf-8", "utf8"):
        encoding = "utf-8-sig"
    try:
        text = _DECLARATION.sub("", data.decode(encoding).lstrip("\ufeff"))
        if "<!DOCTYPE" in text or "<!ENTITY" in text:
            raise RejectError("bad_record", "a document type is not allowed")
        return ET.fromstring(text)
    except (UnicodeDecodeError, LookupError):
        raise RejectError("bad_record", f"the XML is not {encoding.removesuffix('-sig').upper()} text") from None
    except (ET.ParseError, ValueError) as error:
        raise RejectError("bad_record", f"not XML: {error}") from None


def printable_name(name: str) -> str:
    """A file's name for a table: bytes that are not UTF-8 become escapes."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
