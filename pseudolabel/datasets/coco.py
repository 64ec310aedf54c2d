"""COCO's JSON as tools write it: images, annotations and categories by id.

What is refused as a whole (`InputError`, with file and place): a file that is not such an object, wrong types of the
three lists, categories that cannot be told apart, one image id for two images. What is refused by itself (a row): an
image record or annotation that is not sound, or that refers to one that is not there.

Ids are compared as `own_ids.id_key` says and may be texts. Where annotation ids are not whole numbers from 1, each of
one annotation alone, all are numbered from 1 in the file's order, because COCO's tools take 0 for "no match"; image and
category ids that are texts are numbered likewise. Such an object or image keeps its own id as `own_id` in its extras,
where everything stands that the file says beyond what the manifest has columns for.

`area` is never read, `segmentation` only where there is no `bbox`: the box then is what the mask covers. A mask that
cannot be painted is left out by the `shard` stage, its box is used. `iscrowd` null is 0.

Annotations are held as columns of numbers, their texts in a file without a name: about 100 bytes of memory for each.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pseudolabel.datasets.coco_categories import Categories, checked_categories, without_root
from pseudolabel.datasets.coco_columns import Columns, Stored
from pseudolabel.datasets.coco_images import Images
from pseudolabel.datasets.coco_objects import object_parts
from pseudolabel.datasets.json_file import Streamed, read_array, read_object
from pseudolabel.datasets.manifest import (
    extra_json,
    image_row,
    object_cell,
    rejected_annotation,
    rejected_image,
    stand_in_id,
)
from pseudolabel.datasets.names import ImageNames
from pseudolabel.datasets.options import ReadOptions
from pseudolabel.datasets.own_ids import Key, id_key
from pseudolabel.errors import InputError, RejectError

Row = dict[str, Any]


class CocoDataset:
    """A COCO file, or a detector's list of boxes beside one."""

    def __init__(
        self, images_root: Path | None, annotations: Path | None, options: ReadOptions = ReadOptions()
    ) -> None:
        """Reads the file.

        Args:
            images_root: where file names are looked for; None where images lie elsewhere than in a folder.
            annotations: the JSON file.
            options: with `images_json`, `annotations` is a list of boxes and that file has all else.

        Raises:
            InputError: the file cannot be understood as a whole.
        """
        if annotations is None:
            raise InputError("the COCO reader needs a file: --annotations FILE.json")
        self.notes: list[str] = []
        self._path = options.images_json or annotations
        self._names = ImageNames(images_root, options.strip_prefix)
        self._images, self._columns = Images(self._path), Columns()
        self._waiting: list[tuple[int, Any]] = []  # annotations that stand before the images
        self._rejects: list[_Refused] = []
        members = self._read(annotations, options.images_json)
        self.info: Row = members.get("info") or {}
        self.licenses: list[Any] = members.get("licenses") or []
        self._categories = Categories(checked_categories(self._path, members["categories"]))
        self._crowds_count = options.crowds == "as-given"
        self.categories = self._finished()

    def rows(self) -> Iterator[Row]:
        """Images in the file's order, then what was refused of the annotations."""
        records = self._images.records
        found = self._names.find([image.name for image in records])
        self.notes += self._names.notes()
        keys: set[str] = set()
        for place, mine in enumerate(self._columns.by_image(len(records))):
            path = found[place]
            error = records[place].error or (path if isinstance(path, RejectError) else None)
            if error is None and path in keys:
                error = RejectError("duplicate_image", f"another record has the file name {path!r}")
            if error is not None:
                yield from self._refused_image(place, error, mine)
                continue
            keys.add(str(path))
            yield from self._image_rows(place, str(path), mine)
        yield from self._refused_annotations()

    def _read(self, annotations: Path, images_json: Path | None) -> Row:
        if images_json is None:
            wanted = {"images": self._images.add, "annotations": self._on_annotation}
            members = read_object(annotations, wanted, spare="segmentation")
        else:
            members = read_object(images_json, {"images": self._images.add, "annotations": lambda *_: None})
            members["annotations"] = Streamed(read_array(annotations, self._on_annotation))
        self._check_members(members)
        for place, record in self._waiting:
            self._add_annotation(place, record)
        self._waiting.clear()
        return members

    def _check_members(self, members: Row) -> None:
        for name in ("images", "annotations", "categories"):
            if name not in members:
                raise InputError(f"{self._path}: {name!r} is missing; expected a COCO file")
        for name in ("images", "annotations"):
            if not isinstance(members[name], Streamed):
                raise InputError(f"{self._path}: {name!r} is not a list")
        for name, kind in (("info", dict), ("licenses", list)):
            if not isinstance(members.get(name) or kind(), kind):
                raise InputError(f"{self._path}: {name!r} is not {'an object' if kind is dict else 'a list'}")

    def _finished(self) -> list[Row]:
        """The categories that count, with notes on what is odd about them and about the annotations."""
        columns = self._columns
        self._images.finish()
        self._renumbered = columns.renumbered()
        categories, note = without_root(self._categories.rows, self._categories.used(columns))
        self.notes += [note] if note else []
        if self._renumbered:
            self.notes.append("annotation ids are missing, not from 1, or given twice: numbered from 1, own ids kept")
        crowds = columns.n_crowds()
        if crowds and crowds == len(columns):
            whose = "none will be labelled" if self._crowds_count else "taken for objects as you said"
            cure = "; if they are objects, say  --crowds objects" if self._crowds_count else ""
            self.notes.append(f"all {crowds} objects are marked as crowd regions (iscrowd 1): {whose}{cure}")
        return categories

    def _on_annotation(self, place: int, record: Any) -> None:
        if self._images.records:
            self._add_annotation(place, record)
        else:
            self._waiting.append((place, record))

    def _add_annotation(self, place: int, record: Any) -> None:
        if type(record) is not dict:
            error = RejectError("bad_annotation", f"annotations[{place}] is not an object")
            self._rejects.append(_Refused(place, None, None, error))
            return
        own_id, image_id = id_key(record.get("id")), id_key(record.get("image_id"))
        self._columns.see_id(own_id)
        try:
            index = self._images.index_of(image_id)
            if index is None:
                raise RejectError("no_such_image", f"image_id {ascii(record.get('image_id'))[:60]}")
            self._columns.add(place, own_id, index, object_parts(record, self._images.records[index].size_hw))
        except RejectError as error:
            self._rejects.append(_Refused(place, own_id, image_id, error))

    def _image_rows(self, place: int, path: str, mine: list[Stored]) -> Iterator[Row]:
        image, image_id = self._images.records[place], self._images.usable_number(place)
        refused, objects = [], []
        for row in mine:
            category_id = self._categories.number(row[3])
            if category_id is None:
                error = RejectError("no_such_category", f"category_id {self._columns.category_key(row[3])}")
                refused.append(rejected_annotation(path, image_id, self._number(row), error))
            else:
                objects.append(self._cell(row, category_id))
        own_name = {"own_file_name": image.name} if image.name != path else {}
        extra = self._images.extra(place, own_name)
        yield image_row(path, image_id, file_name=path, size_hw=image.size_hw, objects=objects, extra=extra)
        yield from refused

    def _number(self, row: Stored) -> int:
        return row[0] + 1 if self._renumbered else row[1]

    def _cell(self, row: Stored, category_id: int) -> Row:
        columns = self._columns
        extra = columns.texts.text(row[9])
        if self._renumbered and (own_id := columns.own_id(row)) is not None:
            extra = extra_json({"own_id": own_id} | json.loads(extra or "{}"))
        return object_cell(
            self._number(row),
            category_id,
            row[4:8],
            iscrowd=self._crowds_count and bool(row[10]),
            segmentation=columns.texts.text(row[8]),
            extra=extra,
        )

    def _refused_image(self, place: int, error: RejectError, mine: list[Stored]) -> Iterator[Row]:
        image = self._images.records[place]
        key, image_id = image.stand_in(place), self._images.number(place)
        yield rejected_image(key, image_id, image.shown_name(), error)
        refused = RejectError("image_rejected", f"{error.reason}: {error.detail}")
        yield from (rejected_annotation(key, image_id, self._number(row), refused) for row in mine)

    def _refused_annotations(self) -> Iterator[Row]:
        for refused in self._rejects:
            index = self._images.index_of(refused.image)
            own = refused.own_id if type(refused.own_id) is int else stand_in_id(refused.place)
            number = refused.place + 1 if self._renumbered else own
            if index is None:
                key = f"image_id={refused.image}"
                image_id = refused.image if type(refused.image) is int else None
            else:
                image, image_id = self._images.records[index], self._images.number(index)
                key = image.shown_name() or image.stand_in(index)
            yield rejected_annotation(key, image_id, number, refused.error)


@dataclass(frozen=True, slots=True)
class _Refused:
    """An annotation that cannot be used."""

    place: int
    own_id: Key | None
    image: Key | None
    error: RejectError
