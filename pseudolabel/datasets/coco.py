"""COCO's JSON: images, annotations and categories by id.

What is refused as a whole (`InputError`, with file and place): a file that is not such an object, wrong types of the
three lists, categories that cannot be told apart, one image id for two images. What is refused by itself (a row): an
image record or annotation that is not sound, or that refers to one that is not there.

A whole number may be written as 7 or 7.0. Ids are 0 to 2**63 - 1, in any order and with any gaps. `area` is never
read. An annotation with `segmentation` null, [] or absent is a box alone.
"""

import json
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pseudolabel import boxes, rle
from pseudolabel.datasets.json_file import Streamed, read_object
from pseudolabel.datasets.manifest import image_row, object_cell, rejected_annotation, rejected_image, stand_in_id
from pseudolabel.errors import InputError, RejectError
from pseudolabel.images import ExifRule, check_name

_MAX_ID = 2**63 - 1
_MAX_SIDE = 2**31 - 1


@dataclass(slots=True)
class _Image:
    """An image record and what was found on it."""

    key: str
    id: int | None
    file_name: str | None = None
    size_hw: tuple[int, int] | None = None
    error: RejectError | None = None
    objects: list[dict[str, Any]] = field(default_factory=list)


class CocoDataset:
    """A COCO file."""

    def __init__(self, images_root: Path, annotations: Path | None, *, exif: ExifRule = "transpose") -> None:
        """Reads the file.

        Args:
            images_root: unused here; the images are opened by the `shard` stage.
            annotations: the JSON file.
            exif: unused here.

        Raises:
            InputError: the file cannot be understood as a whole.
        """
        if annotations is None:
            raise InputError("the COCO reader needs a file: --annotations FILE.json")
        self._path = annotations
        self._images: deque[_Image] = deque()
        self._by_id: dict[int, _Image] = {}
        self._keys: set[str] = set()
        self._annotation_ids: set[int] = set()
        self._waiting: list[tuple[int, Any]] = []  # annotations that stand before the images
        self._rejects: list[dict[str, Any]] = []
        members = read_object(annotations, {"images": self._add_image, "annotations": self._on_annotation})
        self._check_members(members)
        for position, record in self._waiting:
            self._add_annotation(position, record)
        self._waiting.clear()
        self.info: dict[str, Any] = members.get("info") or {}
        self.licenses: list[Any] = members.get("licenses") or []
        self.categories = self._checked_categories(members["categories"])

    def rows(self) -> Iterator[dict[str, Any]]:
        """Images in the file's order, then what was refused of the annotations."""
        known = {category["id"] for category in self.categories}
        while self._images:
            yield from self._rows_of(self._images.popleft(), known)
        yield from self._rejects

    def _rows_of(self, image: _Image, known: set[int]) -> Iterator[dict[str, Any]]:
        if image.error is not None or image.id is None or image.file_name is None:
            yield rejected_image(image.key, image.id, image.file_name, image.error or RejectError("bad_record"))
            return
        objects = [cell for cell in image.objects if cell["category_id"] in known]
        yield image_row(image.key, image.id, file_name=image.file_name, size_hw=image.size_hw, objects=objects)
        for cell in image.objects:
            if cell["category_id"] not in known:
                error = RejectError("no_such_category", f"category_id {cell['category_id']}")
                yield rejected_annotation(image.key, image.id, cell["annotation_id"], error)

    def _check_members(self, members: dict[str, Any]) -> None:
        for name in ("images", "annotations", "categories"):
            if name not in members:
                raise InputError(f"{self._path}: {name!r} is missing; expected a COCO file")
        for name in ("images", "annotations"):
            if not isinstance(members[name], Streamed):
                raise InputError(f"{self._path}: {name!r} is not a list")
        for name, kind in (("info", dict), ("licenses", list)):
            if not isinstance(members.get(name) or kind(), kind):
                raise InputError(f"{self._path}: {name!r} is not {'an object' if kind is dict else 'a list'}")

    def _checked_categories(self, categories: Any) -> list[dict[str, Any]]:
        if not isinstance(categories, list):
            raise InputError(f"{self._path}: 'categories' is not a list")
        places: dict[int, int] = {}
        checked = []
        for place, category in enumerate(categories):
            where = f"{self._path}: categories[{place}]"
            if not isinstance(category, dict) or not isinstance(category.get("name"), str):
                raise InputError(f"{where}: expected an object with id and name")
            category_id = _whole(category.get("id"), _MAX_ID)
            if category_id is None:
                raise InputError(f"{where}.id: expected a whole number from 0, got {ascii(category.get('id'))[:60]}")
            if category_id in places:
                raise InputError(f"{where}.id: {category_id} is categories[{places[category_id]}]'s id, too")
            places[category_id] = place
            checked.append({**category, "id": category_id})
        return checked

    def _add_image(self, place: int, record: Any) -> None:
        image = self._image(place, record)
        self._images.append(image)
        if image.id is None:
            return
        if image.id in self._by_id:
            raise InputError(f"{self._path}: images[{place}].id: {image.id} is the id of two images")
        self._by_id[image.id] = image

    def _image(self, place: int, record: Any) -> _Image:
        stand_in = f"images[{place}]"
        if not isinstance(record, dict):
            return _Image(stand_in, None, error=RejectError("bad_record", f"{stand_in} is not an object"))
        image_id = _whole(record.get("id"), _MAX_ID)
        name = record.get("file_name")
        shown = name if isinstance(name, str) and name.isprintable() else None
        try:
            key = check_name(name)
            if key in self._keys:
                raise RejectError("duplicate_image", f"another record has the file name {key!r}")
            if image_id is None:
                raise RejectError("bad_record", f"{stand_in}.id is {ascii(record.get('id'))[:60]}")
            size_hw = _size_hw(record)
        except RejectError as error:
            return _Image(f"{stand_in} {shown[:200]}" if shown else stand_in, image_id, shown, error=error)
        self._keys.add(key)
        return _Image(key, image_id, name, size_hw)

    def _on_annotation(self, place: int, record: Any) -> None:
        if self._images:
            self._add_annotation(place, record)
        else:
            self._waiting.append((place, record))

    def _add_annotation(self, place: int, record: Any) -> None:
        image: _Image | None = None
        annotation_id, image_id = _ids(record)
        try:
            if not isinstance(record, dict):
                raise RejectError("bad_annotation", f"annotations[{place}] is not an object")
            image = self._by_id.get(image_id) if image_id is not None else None
            if annotation_id is None:
                raise RejectError("bad_annotation", f"annotations[{place}].id is {ascii(record.get('id'))[:60]}")
            if annotation_id in self._annotation_ids:
                raise RejectError(
                    "duplicate_annotation", f"annotations[{place}] has the id {annotation_id} of an earlier one"
                )
            self._annotation_ids.add(annotation_id)
            if image is None:
                raise RejectError("no_such_image", f"image_id {ascii(record.get('image_id'))[:60]}")
            if image.error is not None:
                raise RejectError("image_rejected", f"{image.error.reason}: {image.error.detail}")
            image.objects.append(_object(annotation_id, record, image.size_hw))
        except RejectError as error:
            owns_id = annotation_id is not None and error.reason != "duplicate_annotation"
            row_id = annotation_id if owns_id and annotation_id is not None else stand_in_id(place)
            key = image.key if image else f"image_id={image_id}"
            self._rejects.append(rejected_annotation(key, image_id, row_id, error))


def _ids(record: Any) -> tuple[int | None, int | None]:
    if not isinstance(record, dict):
        return None, None
    return _whole(record.get("id"), _MAX_ID), _whole(record.get("image_id"), _MAX_ID)


def _object(annotation_id: int, record: dict[str, Any], size_hw: tuple[int, int] | None) -> dict[str, Any]:
    category_id = _whole(record.get("category_id"), _MAX_ID)
    if category_id is None:
        raise RejectError("no_such_category", f"category_id {ascii(record.get('category_id'))[:60]}")
    bbox_xywh = boxes.check_xywh(record.get("bbox"))
    crowd = record.get("iscrowd", 0)
    if not isinstance(crowd, int | float) or crowd not in (0, 1):
        raise RejectError("bad_crowd_flag", f"iscrowd is {ascii(crowd)[:60]}, expected 0 or 1")
    segmentation = _segmentation(record.get("segmentation"), size_hw)
    return object_cell(annotation_id, category_id, bbox_xywh, iscrowd=crowd == 1, segmentation=segmentation)


def _segmentation(value: Any, size_hw: tuple[int, int] | None) -> str | None:
    """The mask as JSON text; without the image's size its form is left to the `shard` stage."""
    if value is None or value == []:
        return None
    if not isinstance(value, list | dict):
        raise RejectError("bad_segmentation", f"expected polygons or an RLE, got {ascii(value)[:60]}")
    if size_hw is not None:
        rle.check_segmentation(value, size_hw)
    return json.dumps(value, separators=(",", ":"))


def _size_hw(record: dict[str, Any]) -> tuple[int, int] | None:
    """The size that a record claims, None if it claims none."""
    if record.get("width") is None and record.get("height") is None:
        return None
    height, width = _whole(record.get("height"), _MAX_SIDE), _whole(record.get("width"), _MAX_SIDE)
    if not height or not width:
        claimed = f"{ascii(record.get('width'))[:60]} x {ascii(record.get('height'))[:60]}"
        raise RejectError("bad_record", f"width x height is {claimed}, expected two positive whole numbers")
    return height, width


def _whole(value: Any, largest: int) -> int | None:
    """A whole number from 0 to `largest`, be it written 7 or 7.0; None for anything else."""
    if type(value) is float and value.is_integer():
        value = int(value)
    return value if type(value) is int and 0 <= value <= largest else None
