"""What readers share whose annotations come image by image and name their classes: VOC, labelme, CVAT, Label Studio.

Categories are the names found, in alphabetical order from 1. Image ids count the sheets from 1, annotation ids the
objects in that order, usable or not.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pseudolabel import boxes
from pseudolabel.datasets.manifest import (
    extra_json,
    image_row,
    object_cell,
    polygons_json,
    rejected_annotation,
    rejected_with_objects,
)
from pseudolabel.datasets.names import ImageNames
from pseudolabel.datasets.options import ReadOptions
from pseudolabel.errors import RejectError
from pseudolabel.images import read_file, read_header
from pseudolabel.pixel_rule import PixelRule

Row = dict[str, Any]
Box = Sequence[float]


@dataclass(slots=True)
class Drawn:
    """An object as it was drawn, in pixels or in fractions of its picture.

    Args:
        label: the name of its class.
        bbox_xywh: not yet checked.
        polygons: each a list x1, y1, x2, y2, ...
        extra: what else the source says of it.
    """

    label: str
    bbox_xywh: Box
    polygons: Sequence[Box] = ()
    extra: Row = field(default_factory=dict)


@dataclass(slots=True)
class Sheet:
    """One image and what was drawn on it.

    Args:
        source: what it was read from, for messages.
        file_name: as the source has it.
        stem: the image's name without suffix that is tried where there is no file of that name.
        size_hw: the size that the source claims.
        error: why the whole sheet cannot be used.
        objects: an object, or why it cannot be used.
        in_fractions: boxes and polygons are fractions of the picture that a viewer shows.
        extra: what else the source says of the image.
    """

    source: str
    file_name: str = ""
    stem: str = ""
    size_hw: tuple[int, int] | None = None
    error: RejectError | None = None
    objects: list[Drawn | RejectError] = field(default_factory=list)
    in_fractions: bool = False
    extra: Row = field(default_factory=dict)


class SheetDataset:
    """Sheets as a data set.

    Args:
        images_root: where file names are looked for; None where images lie elsewhere than in a folder.
        sheets: in the order of the image ids.
        notes: what the reader wants to say.
    """

    def __init__(
        self, images_root: Path | None, sheets: list[Sheet], options: ReadOptions, notes: Sequence[str] = ()
    ) -> None:
        names = sorted({one.label for sheet in sheets for one in sheet.objects if isinstance(one, Drawn)})
        self.categories: list[Row] = [{"id": number, "name": name} for number, name in enumerate(names, 1)]
        self.info: Row = {}
        self.licenses: list[Any] = []
        self.notes = list(notes)
        self._sheets, self._root, self._options = sheets, images_root, options

    def rows(self) -> Iterator[Row]:
        """Images in the order of the sheets, each followed by what was refused on it."""
        ids = {category["name"]: category["id"] for category in self.categories}
        paths = self._paths()
        keys: set[str] = set()
        first_id = 1
        for image_id, (sheet, path) in enumerate(zip(self._sheets, paths, strict=True), 1):
            numbers = range(first_id, first_id + len(sheet.objects))
            first_id += len(sheet.objects)
            try:
                yield from self._sheet_rows(sheet, image_id, path, numbers, ids, keys)
            except RejectError as error:
                key = f"{sheet.source} {sheet.file_name[:200]}".strip()
                yield from rejected_with_objects(key, image_id, None, numbers, error)
        self._sheets.clear()

    def _paths(self) -> list[str | RejectError]:
        """By the name that a sheet has, else by its stem; the stem decides, too, where several have one name."""
        counts = Counter(sheet.file_name for sheet in self._sheets)
        names = ImageNames(self._root, self._options.strip_prefix)
        found = names.find([sheet.file_name or f"{sheet.stem}.jpg" for sheet in self._sheets])
        taken = 0
        for place, sheet in enumerate(self._sheets):
            alone = counts[sheet.file_name] == 1
            if sheet.stem and not (alone and self._is_there(found[place])):
                own = self._by_stem(names, sheet.stem)
                taken += own is not None and own != found[place]
                found[place] = own or found[place]
        self.notes += names.notes()
        if taken:
            self.notes.append(f"{taken} images were found by the names of their annotation files")
        return found

    def _is_there(self, path: str | RejectError) -> bool:
        return isinstance(path, str) and (self._root is None or (self._root / path).exists())

    def _by_stem(self, names: ImageNames, stem: str) -> str | None:
        found = names.find_one(stem) if self._root is not None else None
        return found if isinstance(found, str) and self._is_there(found) else None

    def _sheet_rows(
        self,
        sheet: Sheet,
        image_id: int,
        path: str | RejectError,
        numbers: Sequence[int],
        category_ids: dict[str, int],
        keys: set[str],
    ) -> Iterator[Row]:
        if sheet.error is not None:
            raise sheet.error
        if isinstance(path, RejectError):
            raise path
        if path in keys:
            raise RejectError("duplicate_image", f"another annotation names {path!r}")
        size_hw = self._true_size(path) if sheet.in_fractions else sheet.size_hw
        keys.add(path)
        objects, refused = [], []
        for number, one in zip(numbers, sheet.objects, strict=True):
            try:
                objects.append(_cell(number, one, category_ids, size_hw if sheet.in_fractions else None))
            except RejectError as error:
                refused.append(rejected_annotation(path, image_id, number, error))
        own_name = {"own_file_name": sheet.file_name} if sheet.file_name not in ("", path) else {}
        extra = extra_json(own_name | sheet.extra)
        yield image_row(path, image_id, file_name=path, size_hw=size_hw, objects=objects, extra=extra)
        yield from refused

    def _true_size(self, path: str) -> tuple[int, int]:
        if self._root is None:
            raise RejectError("bad_record", "boxes are fractions of the picture, which has to lie in a local folder")
        return read_header(read_file(self._root, path), rule=PixelRule(exif=self._options.exif)).size_hw


def _cell(number: int, one: Drawn | RejectError, category_ids: dict[str, int], scale_hw: tuple[int, int] | None) -> Row:
    if isinstance(one, RejectError):
        raise one
    box, polygons = list(one.bbox_xywh), [list(polygon) for polygon in one.polygons]
    if scale_hw is not None:
        height, width = scale_hw
        box = [value * side for value, side in zip(box, (width, height, width, height), strict=True)]
        polygons = [[value * (width, height)[place % 2] for place, value in enumerate(polygon)] for polygon in polygons]
    return object_cell(
        number,
        category_ids[one.label],
        boxes.check_xywh(box),
        segmentation=polygons_json(polygons) if polygons else None,
        extra=extra_json(one.extra),
    )
