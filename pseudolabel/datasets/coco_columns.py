"""Annotations as columns of numbers."""

from array import array
from typing import Any

import numpy as np

from pseudolabel.datasets.coco_objects import Parts
from pseudolabel.datasets.own_ids import Key
from pseudolabel.datasets.spill import Spill

_NONE = -1  # an id that is no whole number: a text, or not there


class Columns:
    """What is kept of the usable annotations, in the file's order; and which ids all annotations have."""

    def __init__(self) -> None:
        self.place, self.image, self.own = array("q"), array("q"), array("q")
        self.category, self.boxes = array("q"), array("d")
        self.crowd = bytearray()
        self.segmentation, self.extra = array("q"), array("q")
        self.texts = Spill()
        self._text_ids: dict[int, str] = {}
        self._text_categories: dict[str, int] = {}
        self._seen = array("q")
        self._numbers: Any = ()

    def __len__(self) -> int:
        return len(self.place)

    def see_id(self, own_id: Key | None) -> None:
        """Counts the id of an annotation, be it usable or not."""
        self._seen.append(own_id if type(own_id) is int else _NONE)

    def add(self, place: int, own_id: Key | None, image: int, parts: Parts) -> None:
        if type(own_id) is str:
            self._text_ids[len(self.place)] = own_id
        self.place.append(place)
        self.image.append(image)
        self.own.append(own_id if type(own_id) is int else _NONE)
        self.category.append(self._category_number(parts.category))
        self.boxes.extend(parts.bbox_xywh)
        self.crowd.append(parts.crowd)
        self.segmentation.append(self.texts.add(parts.segmentation))
        self.extra.append(self.texts.add(parts.extra))

    def numbers(self) -> Any:
        """None where the annotations' own ids can be used; else the numbers that stand for them, from 1."""
        if type(self._numbers) is tuple:
            own = np.frombuffer(self._seen, dtype=np.int64)
            usable = not len(own) or (own.min() >= 1 and len(np.unique(own)) == len(own))
            self._numbers = None if usable else np.frombuffer(self.place, dtype=np.int64) + 1
        return self._numbers

    def number(self, at: int, numbers: Any) -> int:
        return int(self.own[at] if numbers is None else numbers[at])

    def own_id(self, at: int) -> Key | None:
        return self._text_ids.get(at) if self.own[at] == _NONE else self.own[at]

    def category_key(self, at: int) -> Key:
        number = self.category[at]
        return number if number >= 0 else list(self._text_categories)[-1 - number]

    def category_keys(self) -> set[Key]:
        """Of all annotations."""
        texts = list(self._text_categories)
        return {number if number >= 0 else texts[-1 - number] for number in set(self.category)}

    def box(self, at: int) -> list[float]:
        return self.boxes[4 * at : 4 * at + 4].tolist()

    def by_image(self, n_images: int) -> tuple[list[int], list[int]]:
        """All places in the order of the images, and where each image's begin; one more start than images."""
        images = np.frombuffer(self.image, dtype=np.int64)
        order = np.argsort(images, kind="stable")
        return order.tolist(), np.searchsorted(images[order], np.arange(n_images + 1)).tolist()

    def _category_number(self, key: Key) -> int:
        if type(key) is int:
            return key
        return -1 - self._text_categories.setdefault(str(key), len(self._text_categories))
