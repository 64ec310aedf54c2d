"""Pascal VOC: a folder of XML files, one per image.

A corner is the first or last pixel of the object, counted from 1, as the devkit says: (xmin, ymin, xmax, ymax) is the
box [xmin - 1, ymin - 1, xmax - xmin + 1, ymax - ymin + 1]. `difficult` and `truncated` objects are objects. Categories
are the names found, in alphabetical order from 1, which for all twenty classes are VOC's own ids. Image ids count the
sorted XML files from 1, annotation ids the objects in that order. An image without an XML file is not part of the set.
"""

import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pseudolabel import boxes
from pseudolabel.datasets.manifest import image_row, object_cell, rejected_annotation, rejected_image
from pseudolabel.errors import InputError, RejectError
from pseudolabel.images import ExifRule, check_name, read_file

_MAX_XML_BYTES = 8 << 20
_MAX_SIDE = 2**31 - 1


@dataclass(slots=True)
class _Sheet:
    """One XML file; objects are (class name, box) or why not."""

    source: str
    file_name: str | None = None
    size_hw: tuple[int, int] | None = None
    error: RejectError | None = None
    objects: list[tuple[str, tuple[float, float, float, float]] | RejectError] = field(default_factory=list)


class VocDataset:
    """A folder of VOC annotations."""

    def __init__(self, images_root: Path, annotations: Path | None, *, exif: ExifRule = "transpose") -> None:
        """Reads every XML file.

        Raises:
            InputError: `annotations` is not a folder with XML files.
        """
        if annotations is None or not annotations.is_dir():
            raise InputError(f"{annotations}: the VOC reader needs a folder of XML files")
        paths = sorted(path.name for path in annotations.glob("*.xml"))
        if not paths:
            raise InputError(f"{annotations}: holds no XML files")
        self.info: dict[str, Any] = {}
        self.licenses: list[Any] = []
        self._sheets = [_read_sheet(annotations, name) for name in paths]
        names = sorted({item[0] for sheet in self._sheets for item in sheet.objects if isinstance(item, tuple)})
        self.categories: list[dict[str, Any]] = [{"id": place, "name": name} for place, name in enumerate(names, 1)]

    def rows(self) -> Iterator[dict[str, Any]]:
        """Images in the order of the sorted XML files, each followed by what was refused on it."""
        ids = {category["name"]: category["id"] for category in self.categories}
        keys: set[str] = set()
        next_annotation_id = 1
        for image_id, sheet in enumerate(self._sheets, 1):
            yield from _sheet_rows(sheet, image_id, next_annotation_id, ids, keys)
            next_annotation_id += len(sheet.objects)
        self._sheets.clear()


def _sheet_rows(
    sheet: _Sheet, image_id: int, first_id: int, category_ids: dict[str, int], keys: set[str]
) -> Iterator[dict[str, Any]]:
    key = sheet.source
    try:
        if sheet.error is not None:
            raise sheet.error
        key = check_name(sheet.file_name)
        if key in keys:
            key = f"{sheet.source} {key}"
            raise RejectError("duplicate_image", f"another XML file names {sheet.file_name!r}")
        keys.add(key)
    except RejectError as error:
        yield rejected_image(key, image_id, None, error)
        refused = RejectError("image_rejected", f"{error.reason}: {error.detail}")
        for place in range(len(sheet.objects)):
            yield rejected_annotation(key, image_id, first_id + place, refused)
        return
    numbered = list(enumerate(sheet.objects, first_id))
    objects = [object_cell(n, category_ids[item[0]], item[1]) for n, item in numbered if isinstance(item, tuple)]
    yield image_row(key, image_id, file_name=str(sheet.file_name), size_hw=sheet.size_hw, objects=objects)
    for number, item in numbered:
        if isinstance(item, RejectError):
            yield rejected_annotation(key, image_id, number, item)


def _read_sheet(folder: Path, name: str) -> _Sheet:
    sheet = _Sheet(source=name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace"))
    try:
        root = _parsed(read_file(folder, name, max_bytes=_MAX_XML_BYTES))
        sheet.objects = [_object(element) for element in root.iterfind("object")]
        sheet.file_name = (root.findtext("filename") or "").strip()
        if not sheet.file_name:
            raise RejectError("bad_record", "no <filename>")
        sheet.size_hw = _size_hw(root)
    except RejectError as error:
        sheet.error = error
    return sheet


def _parsed(data: bytes) -> ET.Element:
    """The root element; a document type, the only way to define entities, is refused."""
    try:
        text = data.decode("utf-8-sig")
        if "<!DOCTYPE" in text or "<!ENTITY" in text:
            raise RejectError("bad_record", "a document type is not allowed")
        return ET.fromstring(text)
    except UnicodeDecodeError:
        raise RejectError("bad_record", "the XML is not UTF-8 text") from None
    except (ET.ParseError, ValueError) as error:
        raise RejectError("bad_record", f"not XML: {error}") from None


def _size_hw(root: ET.Element) -> tuple[int, int] | None:
    texts = [(root.findtext(f"size/{side}") or "").strip() for side in ("height", "width")]
    if not any(texts):
        return None
    if not all(text.isascii() and text.isdigit() and len(text) < 12 for text in texts):
        raise RejectError("bad_record", f"height and width are {texts}")
    height, width = int(texts[0]), int(texts[1])
    if not (0 < height <= _MAX_SIDE and 0 < width <= _MAX_SIDE):
        raise RejectError("bad_record", f"height and width are {texts}")
    return height, width


def _object(element: ET.Element) -> tuple[str, tuple[float, float, float, float]] | RejectError:
    try:
        name = (element.findtext("name") or "").strip()
        if not name:
            raise RejectError("no_such_category", "an object without <name>")
        left, top, right, bottom = (_number(element, corner) for corner in ("xmin", "ymin", "xmax", "ymax"))
        return name, boxes.check_xywh([left - 1, top - 1, right - left + 1, bottom - top + 1])
    except RejectError as error:
        return error


def _number(element: ET.Element, corner: str) -> float:
    text = (element.findtext(f"bndbox/{corner}") or "").strip()
    try:
        return float(text)
    except ValueError:
        raise RejectError("bad_box", f"{corner} is {text[:60]!r}") from None
