"""Annotations as rows of numbers."""

import struct
from array import array
from collections.abc import Iterator
from typing import Any

import numpy as np

from pseudolabel.datasets.coco_objects import Parts
from pseudolabel.datasets.own_ids import Key
from pseudolabel.datasets.spill import Spill

_NONE = -1  # an id that is no whole number: a text, or not there
_ROW = struct.Struct("<4q4d2qB")
_FIELDS = np.dtype(
    [
        *((name, "<i8") for name in ("place", "own", "image", "category")),
        *((name, "<f8") for name in ("x", "y", "width", "height")),
        *((name, "<i8") for name in ("segmentation", "extra")),
        ("crowd", "u1"),
    ]
)

# One annotation as `by_image` gives it; its members are those of `_FIELDS`.
Stored = tuple[int, int, int, int, float, float, float, float, int, int, int]


class Columns:
    """What is kept of the usable annotations, in the file's order; and which ids all annotations have."""

    def __init__(self) -> None:
        self.texts = Spill()
        self._rows = bytearray()
        self._text_ids: dict[int, str] = {}  # by the annotation's place
        self._text_categories: dict[str, int] = {}
        self._seen = array("q")

    def __len__(self) -> int:
        return len(self._rows) // _ROW.size

    def see_id(self, own_id: Key | None) -> None:
        """Counts the id of an annotation, be it usable or not."""
        self._seen.append(own_id if type(own_id) is int else _NONE)

    def add(self, place: int, own_id: Key | None, image: int, parts: Parts) -> None:
        category, box, crowd, segmentation, extra = parts
        if isinstance(own_id, str):
            self._text_ids[place] = own_id
        own_id = own_id if isinstance(own_id, int) else _NONE
        if isinstance(category, str):
            category = -1 - self._text_categories.setdefault(category, len(self._text_categories))
        add = self.texts.add
        self._rows += _ROW.pack(place, own_id, image, category, *box, add(segmentation), add(extra), crowd)

    def renumbered(self) -> bool:
        """Whether the annotations' own ids cannot be used, and their places count instead, from 1."""
        own = np.frombuffer(self._seen, dtype=np.int64)
        return bool(len(own)) and bool(own.min() < 1 or len(np.unique(own)) < len(own))

    def n_crowds(self) -> int:
        return int(self._table()["crowd"].sum())

    def own_id(self, row: Stored) -> Key | None:
        return self._text_ids.get(row[0]) if row[1] == _NONE else row[1]

    def category_key(self, number: int) -> Key:
        """What an annotation gave for its category."""
        return number if number >= 0 else list(self._text_categories)[-1 - number]

    def category_numbers(self) -> list[int]:
        """All that there are, each once."""
        numbers: list[int] = np.unique(self._table()["category"]).tolist()
        return numbers

    def by_image(self, n_images: int) -> Iterator[list[Stored]]:
        """The annotations of one image after the other."""
        table = self._table()
        order = np.argsort(table["image"], kind="stable")
        starts = np.searchsorted(table["image"][order], np.arange(n_images + 1))
        for start, end in zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True):
            yield table[order[start:end]].tolist() if end > start else []

    def _table(self) -> Any:
        return np.frombuffer(self._rows, dtype=_FIELDS)
