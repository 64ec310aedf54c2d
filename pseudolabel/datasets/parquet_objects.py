"""Parquet files as Hugging Face has them: an image and `objects` with `bbox` and `category` in every row.

Category names come from the features that `datasets` writes into the schema. Boxes are (x, y, width, height) or
corners: the numbers tell where one of the two is impossible, else `--box-format` says it. Image ids are `image_id`
where that column holds numbers, no two alike, else the rows from 1; annotation ids count the objects from 1, an `id` of
theirs is kept as `own_id`.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa

from pseudolabel import boxes
from pseudolabel.datasets.manifest import (
    extra_json,
    image_row,
    object_cell,
    rejected_annotation,
)
from pseudolabel.datasets.options import ReadOptions
from pseudolabel.datasets.own_ids import id_key, numbered
from pseudolabel.errors import InputError, RejectError
from pseudolabel.images import MAX_BYTES, read_header
from pseudolabel.pixel_rule import PixelRule
from pseudolabel.sources.parquet import ParquetImages
from pseudolabel.sources.place import plain_name

Row = dict[str, Any]
_OBJECT_COLUMNS = ("objects", "annotations", "object")
_CATEGORY_FIELDS = ("category", "category_id", "categories", "label", "labels", "class")
_LOOKED_AT = 200  # rows by which the form of boxes is told
_BOX_FIELDS = ("bbox", "bboxes", "box", "boxes")


def object_column(schema: pa.Schema) -> str | None:
    """The column that holds objects with boxes; None where there is none."""
    return next((name for name in _OBJECT_COLUMNS if name in schema.names and _box_field(schema.field(name))), None)


class ParquetObjects:
    """The rows of Parquet files with their objects."""

    def __init__(self, source: ParquetImages, options: ReadOptions = ReadOptions()) -> None:
        """Looks at the schema and at the first boxes.

        Raises:
            InputError: no objects, or boxes whose form cannot be told.
        """
        schema = source.schema()
        column = object_column(schema)
        if column is None:
            raise InputError(f"no column of objects with boxes (columns: {', '.join(schema.names)})")
        self.info: Row = {}
        self.licenses: list[Any] = []
        self.notes: list[str] = []
        self._source, self._options, self._column = source, options, column
        fields = _fields(schema.field(column))
        self._box = next(name for name in _BOX_FIELDS if name in fields)
        self._category = next((name for name in _CATEGORY_FIELDS if name in fields), _CATEGORY_FIELDS[0])
        self._beside = [name for name in ("image_id", "width", "height") if name in schema.names]
        self._corners = self._boxes_are_corners()
        self._ids, names = self._first_look(_class_names(schema, column, self._category))
        self.categories: list[Row] = [{"id": number, "name": name} for number, name in names.items()]
        self._number_of = {name: number for number, name in names.items()}

    def rows(self) -> Iterator[Row]:
        """Images in the order of files and rows."""
        next_id = 1
        for place, (name, cells) in enumerate(self._source.columns([self._column, *self._beside])):
            image_id = place + 1 if self._ids is None else self._ids[place]
            key = plain_name(name)
            objects, refused = [], []
            for one in _objects(cells[self._column]):
                try:
                    objects.append(self._cell(next_id, one))
                except RejectError as error:
                    refused.append(rejected_annotation(key, image_id, next_id, error))
                next_id += 1
            row = image_row(key, image_id, file_name=name, size_hw=_size_hw(cells), objects=objects)
            yield row | {"shard_key": self._source.shard_key(name)}
            yield from refused

    def _cell(self, number: int, one: Row) -> Row:
        value = one.get(self._category)
        category_id = self._number_of.get(value) if isinstance(value, str) else value
        if category_id is None or category_id not in self._number_of.values():
            raise RejectError("no_such_category", f"category {ascii(value)[:60]}")
        box = boxes.check_xywh(_xywh(one.get(self._box), self._corners))
        known = {self._box, self._category, "area", "id", "image_id"}
        extra = {name: cell for name, cell in one.items() if name not in known and isinstance(cell, str | int | float)}
        crowd = bool(extra.pop("iscrowd", extra.pop("is_crowd", 0))) and self._options.crowds == "as-given"
        own = {"own_id": one["id"]} if isinstance(one.get("id"), int | str) else {}
        return object_cell(number, int(category_id), box, iscrowd=crowd, extra=extra_json(own | extra))

    def _first_look(self, names: dict[int, str] | None) -> tuple[list[int] | None, dict[int, str]]:
        """Image ids that can be used, and category names by number; one pass over the small columns."""
        wanted = [self._column, *(["image_id"] if "image_id" in self._beside else [])]
        ids, found = [], set[Any]()
        for _, cells in self._source.columns(wanted):
            ids.append(id_key(cells.get("image_id")))
            found |= {one.get(self._category) for one in _objects(cells[self._column])}
        found.discard(None)
        if names is None and all(isinstance(value, int) for value in found):
            names = {value: f"class {value}" for value in sorted(found)}
        if names is None:
            names = dict(enumerate(sorted(str(value) for value in found), 1))
        return numbered(ids), names

    def _boxes_are_corners(self) -> bool:
        """Whether boxes are (x1, y1, x2, y2).

        Raises:
            InputError: they are neither these nor (x, y, width, height).
        """
        if self._options.box_format != "auto":
            return self._options.box_format == "xyxy"
        inverted = beyond = False
        largest = 0.0
        for number, (name, cells) in enumerate(self._source.columns([self._column, *self._beside])):
            given: list[Any] = [box for one in _objects(cells[self._column]) if _is_box(box := one.get(self._box))]
            if number >= _LOOKED_AT:
                break
            inverted |= any(box[2] <= box[0] or box[3] <= box[1] for box in given)
            largest = max([largest, *(value for box in given for value in box)])
            if given and (size := _size_hw(cells) or self._size(name)):
                beyond |= any(box[0] + box[2] > size[1] + 1 or box[1] + box[3] > size[0] + 1 for box in given)
        return self._told(inverted, beyond, largest)

    def _told(self, inverted: bool, beyond: bool, largest: float) -> bool:
        if 0 < largest <= 1:
            raise InputError(f"boxes of {self._column} are fractions of the picture; convert them to pixels")
        if inverted and beyond:
            raise InputError(f"boxes of {self._column} fit neither xywh nor xyxy; say which:  --box-format xywh|xyxy")
        if beyond or inverted or not largest:
            return beyond
        self.notes.append("boxes may be xywh or xyxy, both would fit: taken for xywh; else say  --box-format xyxy")
        return False

    def _size(self, name: str) -> tuple[int, int] | None:
        try:
            return read_header(
                self._source.read(name, max_bytes=MAX_BYTES), rule=PixelRule(exif=self._options.exif)
            ).size_hw
        except RejectError:  # the stage that opens images says why
            return None


def _fields(field: pa.Field) -> list[str]:
    kind = field.type
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        kind = kind.value_type
    return [inner.name for inner in kind] if pa.types.is_struct(kind) else []


def _box_field(field: pa.Field) -> bool:
    return any(name in _fields(field) for name in _BOX_FIELDS)


def _objects(cell: Any) -> list[Row]:
    """The objects of a row, be they a list of structs or a struct of lists."""
    if isinstance(cell, list):
        return [one for one in cell if isinstance(one, dict)]
    if not isinstance(cell, dict):
        return []
    lists = {name: values for name, values in cell.items() if isinstance(values, list)}
    count = max((len(values) for values in lists.values()), default=0)
    return [{name: values[at] for name, values in lists.items() if at < len(values)} for at in range(count)]


def _is_box(box: Any) -> bool:
    return isinstance(box, list) and len(box) == 4 and all(isinstance(value, int | float) for value in box)


def _xywh(box: Any, corners: bool) -> Any:
    if not corners or not _is_box(box):
        return box
    return [box[0], box[1], box[2] - box[0], box[3] - box[1]]


def _size_hw(cells: Mapping[str, Any]) -> tuple[int, int] | None:
    height, width = cells.get("height"), cells.get("width")
    return (height, width) if isinstance(height, int) and isinstance(width, int) and height > 0 < width else None


def _class_names(schema: pa.Schema, column: str, field: str) -> dict[int, str] | None:
    """Names by number from the features that `datasets` writes; None where it wrote none."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"][column]
    except (KeyError, TypeError, ValueError):
        return None
    names = _names_below(features, field)
    return dict(enumerate(map(str, names))) if names else None


def _names_below(value: Any, field: str) -> list[Any] | None:
    """The list `names` of the feature of that name, however deep it lies."""
    if isinstance(value, list):
        return next((found for one in value if (found := _names_below(one, field))), None)
    if not isinstance(value, dict):
        return None
    if isinstance(value.get(field), dict):
        return _first_names(value[field])
    return next((found for one in value.values() if (found := _names_below(one, field))), None)


def _first_names(value: Any) -> list[Any] | None:
    if not isinstance(value, dict):
        return None
    if isinstance(value.get("names"), list):
        names: list[Any] = value["names"]
        return names
    return next((found for one in value.values() if (found := _first_names(one))), None)
