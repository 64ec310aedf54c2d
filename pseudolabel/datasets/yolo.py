"""YOLO: one text file of normalised boxes per image, and the class names in data.yaml or a list.

A line is `class x y width height`, centre and size as fractions of the picture, or `class x1 y1 x2 y2 x3 y3 ...`, a
polygon. Fractions become pixels here, by the size that the image's header gives under the EXIF rule of the run. The
label file of `a/b.jpg` is `a/b.txt` in the folder of labels: the one given, else `labels` in place of or beside the
folder of images, else the folder of images itself. An image without a label file has no objects. Category ids are
YOLO's class numbers; image ids count the sorted images from 1, annotation ids the lines in that order.
"""

import json
import math
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import yaml

from pseudolabel import boxes
from pseudolabel.datasets.manifest import image_row, object_cell, rejected_annotation, rejected_image
from pseudolabel.errors import InputError, RejectError
from pseudolabel.images import ExifRule, check_name, read_file, read_header
from pseudolabel.sources.folder import Folder
from pseudolabel.sources.listing import printable_key

_MAX_TEXT_BYTES = 64 << 20
_NAME_FILES = ("data.yaml", "dataset.yaml", "classes.txt", "obj.names")
_SLACK = 1e-3  # rounding of those who wrote the fractions


class YoloDataset:
    """Images with YOLO labels."""

    def __init__(self, images_root: Path, annotations: Path | None, *, exif: ExifRule = "transpose") -> None:
        """Finds names and labels.

        Raises:
            InputError: no class names or no folder of labels.
        """
        names_file, labels = _find(images_root, annotations)
        self.categories: list[dict[str, Any]] = _categories(names_file)
        self.info: dict[str, Any] = {}
        self.licenses: list[Any] = []
        self._images, self._labels, self._exif = images_root, labels, exif

    def rows(self) -> Iterator[dict[str, Any]]:
        """Images sorted by path, each followed by what was refused on it."""
        known = {category["id"] for category in self.categories}
        next_id = 1
        for image_id, path in enumerate(Folder(self._images).names(), 1):
            rows, lines = self._image_rows(path, image_id, next_id, known)
            yield from rows
            next_id += lines

    def _image_rows(self, path: str, image_id: int, first_id: int, known: set[int]) -> tuple[list[dict[str, Any]], int]:
        """The rows of one image, and how many label lines it has."""
        key, lines = printable_key(path), list[str]()
        try:
            key = check_name(path)
            lines = self._lines(path)
            size_hw = read_header(read_file(self._images, path), exif=self._exif).size_hw
        except RejectError as error:
            refused = RejectError("image_rejected", f"{error.reason}: {error.detail}")
            rejects = [rejected_annotation(key, image_id, first_id + place, refused) for place in range(len(lines))]
            return [rejected_image(key, image_id, None, error), *rejects], len(lines)
        objects, rejects = [], []
        for annotation_id, line in enumerate(lines, first_id):
            try:
                objects.append(_object(annotation_id, line, size_hw, known))
            except RejectError as error:
                rejects.append(rejected_annotation(key, image_id, annotation_id, error))
        row = image_row(key, image_id, file_name=path, size_hw=size_hw, objects=objects)
        return [row, *rejects], len(lines)

    def _lines(self, path: str) -> list[str]:
        label = str(PurePosixPath(path).with_suffix(".txt"))
        try:
            text = read_file(self._labels, label, max_bytes=_MAX_TEXT_BYTES).decode("utf-8-sig")
        except UnicodeDecodeError:
            raise RejectError("bad_record", f"the label file {label!r} is not UTF-8 text") from None
        except RejectError as error:
            if error.reason in ("missing", "empty_file"):
                return []
            raise RejectError("bad_record", f"the label file {label!r}: {error.reason}") from None
        return [line for line in text.splitlines() if line.strip()]


def _object(annotation_id: int, line: str, size_hw: tuple[int, int], known: set[int]) -> dict[str, Any]:
    fields = line.split()
    category_id = _class_number(fields[0])
    if category_id not in known:
        raise RejectError("no_such_category", f"class {fields[0][:60]!r}")
    values = [_fraction(text) for text in fields[1:]]
    if len(values) == 4:
        return object_cell(annotation_id, category_id, _box_in_pixels(values, size_hw))
    if len(values) < 6 or len(values) % 2:
        raise RejectError("bad_annotation", f"{len(fields)} numbers are neither a box nor a polygon")
    return _polygon_cell(annotation_id, category_id, values, size_hw)


def _box_in_pixels(values: list[float], size_hw: tuple[int, int]) -> tuple[float, float, float, float]:
    height, width = size_hw
    pixels = boxes.cxcywh_to_xywh(np.array(values) * [width, height, width, height])
    return boxes.check_xywh(pixels.tolist())


def _polygon_cell(
    annotation_id: int, category_id: int, values: list[float], size_hw: tuple[int, int]
) -> dict[str, Any]:
    points = np.array(values).reshape(-1, 2) * [size_hw[1], size_hw[0]]
    low, high = points.min(axis=0), points.max(axis=0)
    bbox_xywh = boxes.check_xywh([*low.tolist(), *(high - low).tolist()])
    segmentation = json.dumps([points.ravel().tolist()], separators=(",", ":"))
    return object_cell(annotation_id, category_id, bbox_xywh, segmentation=segmentation)


def _class_number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else None


def _fraction(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not -_SLACK <= value <= 1 + _SLACK:
        raise RejectError("bad_box", f"{text[:60]!r} is not a fraction of the picture; are these pixels?")
    return value


def _find(images_root: Path, annotations: Path | None) -> tuple[Path, Path]:
    """The file of class names and the folder of labels."""
    if annotations is not None and annotations.is_file():
        return annotations, _labels_for(images_root)
    labels = annotations if annotations is not None else _labels_for(images_root)
    if not labels.is_dir():
        raise InputError(f"{labels}: no such folder of labels")
    for folder in (labels, labels.parent, images_root.parent):
        for name in _NAME_FILES:
            if (folder / name).is_file():
                return folder / name, labels
    raise InputError(f"{labels}: no class names; put data.yaml or classes.txt there, or give it as --annotations")


def _labels_for(images_root: Path) -> Path:
    parts = images_root.absolute().parts
    if "images" in parts:
        place = len(parts) - 1 - parts[::-1].index("images")
        candidate = Path(*parts[:place], "labels", *parts[place + 1 :])
        if candidate.is_dir():
            return candidate
    beside = images_root.absolute().parent / "labels"
    return beside if beside.is_dir() else images_root


def _categories(path: Path) -> list[dict[str, Any]]:
    """Class names of data.yaml (a list, or numbers to names), or of a file with one per line."""
    try:
        text = path.read_text(encoding="utf-8-sig")
        names = yaml.safe_load(text) if path.suffix in (".yaml", ".yml") else {"names": text.split("\n")}
    except (UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        raise InputError(f"{path}: cannot be read: {' '.join(str(error).split())[:200]}") from None
    names = names.get("names") if isinstance(names, dict) else None
    if isinstance(names, list):
        names = dict(enumerate(name.strip() if isinstance(name, str) else name for name in names))
    if not isinstance(names, dict):
        raise InputError(f"{path}: 'names' is neither a list nor numbers with names")
    numbered = {number: name for number, name in names.items() if name != ""}  # empty lines at the end of a list
    for number, name in numbered.items():
        if type(number) is not int or number < 0 or not isinstance(name, str):
            raise InputError(f"{path}: names: {number!r}: {name!r}; expected a class number and its name")
    if not numbered:
        raise InputError(f"{path}: no class names")
    return [{"id": number, "name": numbered[number]} for number in sorted(numbered)]
