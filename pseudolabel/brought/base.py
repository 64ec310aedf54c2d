"""What every form of brought masks becomes, and what is known of the run that they are for."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from jaxtyping import Float32

from pseudolabel.candidates import GivenBox
from pseudolabel.datasets.own_ids import Key, id_key
from pseudolabel.errors import InputError
from pseudolabel.masks import PixelMask, SoftMask

BoxXyxy = tuple[float, float, float, float]
Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class KnownImage:
    """An image of the run that can be worked on."""

    key: str
    file_name: str
    image_id: int | None
    size_hw: tuple[int, int]
    shard: int
    objects: tuple[GivenBox, ...]


@dataclass(frozen=True, slots=True)
class FullMask:
    """Foreground probabilities on a window of whole pixels whose top-left one is (x0, y0); zero elsewhere."""

    x0: int
    y0: int
    probability: Float32[np.ndarray, "h w"]


Mask = PixelMask | FullMask | SoftMask


class Painter(Protocol):
    """Makes a mask of what was read, once the size of its image is known."""

    def __call__(self, size_hw: tuple[int, int]) -> Mask:
        """The mask.

        Raises:
            InputError: it is damaged or does not fit the image; the message names file and entry.
        """


@dataclass(frozen=True, slots=True)
class Brought:
    """One mask as it was read.

    `image` is what the file says of its image: a key or file name of the run, a number, or nothing where an annotation
    id says it all.
    """

    where: str  # file and entry, for messages
    paint: Painter
    annotation_id: Key | None = None
    image: str | int | None = None
    category_id: int | None = None
    score: float | None = None  # None: how well its extent meets the box
    box_xyxy: BoxXyxy | None = None  # None: the mask's own extent
    knows_class: bool = False
    source: str | None = None  # None: the table's name
    is_by_id: bool = False  # nothing but an annotation id of the run can be meant; without one it is a free candidate


def said_id(where: str, said: Any) -> Key | None:
    """The id of the object that a mask is for, by the rule of the boxes file; None is said of a mask of no object.

    Raises:
        InputError: it is no id; the message begins with `where`.
    """
    key = id_key(said)
    if key is None and said is not None:
        raise InputError(f"{where}: expected an annotation id, a number or a text, got {said!r:.60}")
    return key


@dataclass(frozen=True)
class KnownRun:
    """The images of a run by whatever a file may call them."""

    images: Mapping[str, KnownImage]
    by_name: Mapping[str, KnownImage] = field(default_factory=dict)  # file names, and stems that one image alone has
    by_id: Mapping[int, KnownImage] = field(default_factory=dict)
    by_object: Mapping[Key, tuple[KnownImage, GivenBox]] = field(default_factory=dict)
    by_source_id: Mapping[Key, tuple[KnownImage, GivenBox]] = field(default_factory=dict)  # where it numbered them anew

    def image(self, said: str | int | None) -> KnownImage | None:
        """The image that a file means."""
        if isinstance(said, int):
            return self.by_id.get(said)
        if said is None:
            return None
        named, number = self.images.get(said) or self.by_name.get(said), id_key(said)
        return self.by_id.get(number) if named is None and isinstance(number, int) else named


def known_run(images: Iterable[KnownImage], source_ids: Mapping[int, Any] | None = None) -> KnownRun:
    """A run of these images.

    Args:
        source_ids: of annotations that were numbered anew, what their source calls them; an id of two is left out.
    """
    by_key = {image.key: image for image in images}
    names: dict[str, KnownImage | None] = {}
    for image in by_key.values():
        for name in {image.file_name, image.file_name.rsplit("/", 1)[-1], _stem(image.file_name)}:
            names[name] = None if name in names else image
    by_object: dict[Key, tuple[KnownImage, GivenBox]] = {
        one.annotation_id: (image, one)
        for image in by_key.values()
        for one in image.objects
        if one.annotation_id is not None
    }
    keys = {number: id_key(said) for number, said in (source_ids or {}).items()}
    often = Counter(keys.values())
    return KnownRun(
        by_key,
        {name: image for name, image in names.items() if image is not None},
        {image.image_id: image for image in by_key.values() if image.image_id is not None},
        by_object,
        {
            key: by_object[number]
            for number, key in keys.items()
            if key is not None and often[key] == 1 and number in by_object
        },
    )


def _stem(file_name: str) -> str:
    name = file_name.rsplit("/", 1)[-1]
    return name.rsplit(".", 1)[0]
