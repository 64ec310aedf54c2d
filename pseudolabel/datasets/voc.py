"""Pascal VOC: a folder of XML files, one per image.

A corner is the first or last pixel of the object, counted from 1, as the devkit says: (xmin, ymin, xmax, ymax) is the
box [xmin - 1, ymin - 1, xmax - xmin + 1, ymax - ymin + 1]. `difficult` and `truncated` objects are objects. Categories
are the names found, in alphabetical order from 1, which for all twenty classes are VOC's own ids. The image is the file
that `<filename>` names; where there is none, or several XML files name the same, the one with the XML file's own name.
Image ids count the sorted XML files from 1, annotation ids the objects in that order. An image without an XML file is
not part of the set.
"""

import xml.etree.ElementTree as ET
from pathlib import Path, PurePosixPath
from typing import Any

from pseudolabel.datasets.options import ReadOptions
from pseudolabel.datasets.sheets import Drawn, Sheet, SheetDataset
from pseudolabel.datasets.xml_file import printable_name, read_xml
from pseudolabel.errors import InputError, RejectError

_MAX_XML_BYTES = 8 << 20
_MAX_SIDE = 2**31 - 1


class VocDataset(SheetDataset):
    """A folder of VOC annotations."""

    def __init__(
        self, images_root: Path | None, annotations: Path | None, options: ReadOptions = ReadOptions()
    ) -> None:
        """Reads every XML file.

        Raises:
            InputError: `annotations` is not a folder with XML files.
        """
        if annotations is None or not annotations.is_dir():
            raise InputError(f"{annotations}: the VOC reader needs a folder of XML files")
        names = sorted(path.relative_to(annotations).as_posix() for path in annotations.rglob("*.xml"))
        if not names:
            raise InputError(f"{annotations}: holds no XML files")
        super().__init__(images_root, [_read_sheet(annotations, name) for name in names], options)


def _read_sheet(folder: Path, name: str) -> Sheet:
    sheet = Sheet(printable_name(name), stem=str(PurePosixPath(name).with_suffix("")))
    try:
        root = read_xml(folder, name, max_bytes=_MAX_XML_BYTES)
        sheet.objects = [_object(element) for element in root.iterfind("object")]
        sheet.file_name = (root.findtext("filename") or "").strip()
        if root.tag != "annotation":
            raise RejectError("bad_record", f"<{root.tag[:60]}> is not VOC's <annotation>")
        sheet.size_hw = _size_hw(root)
    except RejectError as error:
        sheet.error = error
    return sheet


def _size_hw(root: ET.Element) -> tuple[int, int] | None:
    texts = [(root.findtext(f"size/{side}") or "").strip() for side in ("height", "width")]
    if not any(text.strip("0") for text in texts):  # some tools write 0 for what they do not know
        return None
    if not all(text.isascii() and text.isdigit() and len(text) < 12 for text in texts):
        raise RejectError("bad_record", f"height and width are {texts}")
    height, width = int(texts[0]), int(texts[1])
    if not (0 < height <= _MAX_SIDE and 0 < width <= _MAX_SIDE):
        raise RejectError("bad_record", f"height and width are {texts}")
    return height, width


def _object(element: ET.Element) -> Drawn | RejectError:
    try:
        name = (element.findtext("name") or "").strip()
        if not name:
            raise RejectError("no_such_category", "an object without <name>")
        left, top, right, bottom = (_number(element, corner) for corner in ("xmin", "ymin", "xmax", "ymax"))
        return Drawn(name, [left - 1, top - 1, right - left + 1, bottom - top + 1], extra=_flags(element))
    except RejectError as error:
        return error


def _flags(element: ET.Element) -> dict[str, Any]:
    found = {flag: (element.findtext(flag) or "").strip() for flag in ("difficult", "truncated", "occluded", "pose")}
    return {flag: text for flag, text in found.items() if text not in ("", "0", "Unspecified")}


def _number(element: ET.Element, corner: str) -> float:
    text = (element.findtext(f"bndbox/{corner}") or "").strip()
    try:
        return float(text)
    except ValueError:
        raise RejectError("bad_box", f"{corner} is {text[:60]!r}") from None
