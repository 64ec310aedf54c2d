"""YOLO: one text file of normalised boxes per image, and the class names in data.yaml or a list.

A line is `class x y width height`, centre and size as fractions of the picture, and perhaps a confidence behind them;
or `class x1 y1 x2 y2 x3 y3 ...`, a polygon or the four corners of a turned box, whose extent is the box. Fractions
become pixels here, by the size that the image's header gives under the EXIF rule of the run. `yolo_files` says where
names and label files are looked for. An image without a label file has no objects, but where no image has one, the
data set is refused. Category ids are YOLO's class numbers; image ids count the sorted images from 1, annotation ids the
lines in that order.
"""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from pseudolabel import boxes
from pseudolabel.datasets.manifest import (
    extra_json,
    image_row,
    object_cell,
    polygons_json,
    rejected_annotation,
    rejected_with_objects,
)
from pseudolabel.datasets.options import ReadOptions
from pseudolabel.datasets.yolo_files import LabelFiles, YoloNames, find_yolo
from pseudolabel.errors import InputError, RejectError
from pseudolabel.images import read_file, read_header
from pseudolabel.pixel_rule import PixelRule
from pseudolabel.sources.folder import Folder, check_name
from pseudolabel.sources.listing import printable_key

Row = dict[str, Any]
_SLACK = 1e-3  # rounding of those who wrote the fractions


class YoloDataset:
    """Images with YOLO labels."""

    def __init__(
        self, images_root: Path | None, annotations: Path | None, options: ReadOptions = ReadOptions()
    ) -> None:
        """Finds names and labels.

        Raises:
            InputError: no class names, no folder of labels, or not one image with a label file.
        """
        if images_root is None:
            raise InputError("YOLO labels need their images in a local folder; COCO and VOC do not")
        self._names: YoloNames
        self._names, labels = find_yolo(images_root, annotations)
        self.categories: list[Row] = self._names.categories
        self.info: Row = {}
        self.licenses: list[Any] = []
        self.notes: list[str] = []
        self._images, self._exif = images_root, options.exif
        self._labels = LabelFiles(images_root, labels)
        self._paths = list(Folder(images_root).names())
        self._check_labels()

    def rows(self) -> Iterator[Row]:
        """Images sorted by path, each followed by what was refused on it."""
        known = {category["id"] for category in self.categories}
        next_id = 1
        for image_id, path in enumerate(self._paths, 1):
            rows, lines = self._image_rows(path, image_id, next_id, known)
            yield from rows
            next_id += lines

    def _check_labels(self) -> None:
        """Raises InputError where no image has a label file; counts those that have none."""
        without = [path for path in self._paths if self._labels.of(path) is None]
        if without and len(without) == len(self._paths):
            raise InputError(self._labels.nobody_has_one(self._paths))
        if without:
            count = f"{len(without)} of {len(self._paths)}"
            self.notes.append(f"{count} images have no label file and so no objects, such as {without[0]}")

    def _image_rows(self, path: str, image_id: int, first_id: int, known: set[int]) -> tuple[list[Row], int]:
        """The rows of one image, and how many label lines it has."""
        key, lines = printable_key(path), list[str]()
        try:
            key = check_name(path)
            lines = self._labels.lines(path)
            size_hw = read_header(read_file(self._images, path), rule=PixelRule(exif=self._exif)).size_hw
        except RejectError as error:
            numbers = range(first_id, first_id + len(lines))
            return list(rejected_with_objects(key, image_id, None, numbers, error)), len(lines)
        objects, rejects = [], []
        for annotation_id, line in enumerate(lines, first_id):
            try:
                objects.append(self._object(annotation_id, line, size_hw, known))
            except RejectError as error:
                rejects.append(rejected_annotation(key, image_id, annotation_id, error))
        split = self._names.split_of(self._images / path)
        row = image_row(key, image_id, file_name=path, size_hw=size_hw, objects=objects, split=split)
        return [row, *rejects], len(lines)

    def _object(self, annotation_id: int, line: str, size_hw: tuple[int, int], known: set[int]) -> Row:
        texts = line.split()
        category_id = _class_number(texts[0])
        if category_id not in known:
            raise RejectError("no_such_category", f"class {texts[0][:60]!r}")
        values, confidence = _without_confidence(texts[1:], self._names.keypoint_values)
        extra = extra_json({} if confidence is None else {"confidence": confidence})
        if len(values) == 4:
            return object_cell(annotation_id, category_id, _box_in_pixels(values, size_hw), extra=extra)
        if len(values) < 6 or len(values) % 2:
            raise RejectError("bad_annotation", f"{len(texts)} numbers are neither a box nor a polygon")
        points = (np.array(values).reshape(-1, 2) * [size_hw[1], size_hw[0]]).ravel().tolist()
        bbox_xywh = boxes.check_xywh(boxes.around_polygons([points]))
        segmentation = None if len(values) == 8 else polygons_json([points])  # four corners: a turned box
        return object_cell(annotation_id, category_id, bbox_xywh, segmentation=segmentation, extra=extra)


def _without_confidence(texts: list[str], keypoint_values: int) -> tuple[list[float], float | None]:
    """The numbers of a box or polygon, and the confidence that stands behind them: then their count is odd."""
    if keypoint_values and len(texts) >= 4 + keypoint_values:
        texts = texts[:4] + texts[4 + keypoint_values :]
    values = [_fraction(text) for text in texts]
    if len(values) % 2 and len(values) > 4:
        return values[:-1], values[-1]
    return values, None


def _box_in_pixels(values: list[float], size_hw: tuple[int, int]) -> tuple[float, float, float, float]:
    height, width = size_hw
    pixels = boxes.cxcywh_to_xywh(np.array(values) * [width, height, width, height])
    return boxes.check_xywh(pixels.tolist())


def _class_number(text: str) -> int | None:
    """A class's number, which some tools write as 3.0."""
    whole = text.removesuffix(".0")
    return int(whole) if whole.isascii() and whole.isdigit() and len(whole) < 19 else None


def _fraction(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not -_SLACK <= value <= 1 + _SLACK:
        raise RejectError("bad_box", f"{text[:60]!r} is not a fraction of the picture; are these pixels?")
    return value
