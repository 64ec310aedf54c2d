"""The image records of a COCO file."""

import json
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from pseudolabel.datasets.manifest import extra_json
from pseudolabel.datasets.own_ids import MAX_ID, Key, id_key
from pseudolabel.datasets.spill import Spill
from pseudolabel.errors import InputError, RejectError

_MAX_SIDE = 2**31 - 1
_COLUMNS = frozenset(("id", "file_name", "width", "height"))
_OTHER_NAMES = ("coco_url", "filename", "path", "name")  # LVIS has the first alone


@dataclass(slots=True)
class Image:
    """A record: its name as it stands there, and its size if it claims one."""

    key: Key | None
    name: str
    size_hw: tuple[int, int] | None
    error: RejectError | None
    extra: int

    def shown_name(self) -> str | None:
        return self.name if self.name and self.name.isprintable() else None

    def stand_in(self, place: int) -> str:
        """A key for a record that cannot be used; no usable image has it."""
        return f"images[{place}] {self.name[:200]}" if self.shown_name() else f"images[{place}]"


class Images:
    """All records, by place and by id."""

    def __init__(self, path: Path) -> None:
        self.records: list[Image] = []
        self._path = path
        self._by_id: dict[Key, int] = {}
        self._by_stem: dict[str, int] | None = None
        self._texts = Spill()
        self._numbered = False

    def add(self, place: int, record: Any) -> None:
        """Raises InputError where the record's id is another one's."""
        image = self._image(place, record)
        self.records.append(image)
        if image.key is None:
            return
        if image.key in self._by_id:
            raise InputError(f"{self._path}: images[{place}].id: {image.key} is the id of two images")
        self._by_id[image.key] = place

    def finish(self) -> None:
        """Call once all records are there: ids that are not all numbers are numbered from 1."""
        self._numbered = any(type(image.key) is str for image in self.records)

    def number(self, place: int) -> int | None:
        """The id of an image here."""
        key = self.records[place].key
        return place + 1 if self._numbered else key if type(key) is int else None

    def usable_number(self, place: int) -> int:
        """As `number`, of a record without error, which has an id."""
        number = self.number(place)
        assert number is not None
        return number

    def index_of(self, key: Key | None) -> int | None:
        """The place of the image that an annotation means by an id, or by the file's name without folder and suffix."""
        if key is None:
            return None
        index = self._by_id.get(key)
        return self._stems().get(key) if index is None and type(key) is str else index

    def extra(self, place: int, more: dict[str, Any]) -> str | None:
        """What the record says beyond its columns, and its own id where it has another number here."""
        image = self.records[place]
        text = self._texts.text(image.extra)
        if self._numbered:
            more = {"own_id": image.key} | more
        return extra_json(more | json.loads(text or "{}")) if more else text

    def _image(self, place: int, record: Any) -> Image:
        if type(record) is not dict:
            return Image(None, "", None, RejectError("bad_record", f"images[{place}] is not an object"), -1)
        key, name = id_key(record.get("id")), _name(record)
        extra = self._texts.add(extra_json({field: value for field, value in record.items() if field not in _COLUMNS}))
        if name is None:
            error = RejectError("bad_name", f"images[{place}].file_name is {ascii(record.get('file_name'))[:60]}")
            return Image(key, "", None, error, extra)
        if key is None:
            error = RejectError("bad_record", f"images[{place}].id is {ascii(record.get('id'))[:60]}")
            return Image(key, name, None, error, extra)
        try:
            return Image(key, name, _size_hw(record), None, extra)
        except RejectError as error:
            return Image(key, name, None, error, extra)

    def _stems(self) -> dict[str, int]:
        if self._by_stem is None:
            self._by_stem = {}
            for place, image in enumerate(self.records):
                path = PurePosixPath(image.name)
                self._by_stem |= {path.stem: place, path.name: place}
        return self._by_stem


def _name(record: dict[str, Any]) -> str | None:
    """The file name, or LVIS's or another tool's word for it."""
    names = (record.get(field) for field in ("file_name", *_OTHER_NAMES))
    return next((name for name in names if type(name) is str and name.strip()), None)


def _size_hw(record: dict[str, Any]) -> tuple[int, int] | None:
    """The size that a record claims, None if it claims none."""
    if record.get("width") is None and record.get("height") is None:
        return None
    height, width = _side(record.get("height")), _side(record.get("width"))
    if not height or not width:
        claimed = f"{ascii(record.get('width'))[:60]} x {ascii(record.get('height'))[:60]}"
        raise RejectError("bad_record", f"width x height is {claimed}, expected two positive whole numbers")
    return height, width


def _side(value: Any) -> int | None:
    key = id_key(value)
    return key if type(key) is int and key <= min(_MAX_SIDE, MAX_ID) else None
