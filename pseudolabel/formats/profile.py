"""What an export profile is given, image by image, and what it has to be able to do.

A profile is one file with one class, and one line in `pseudolabel.formats.profiles`. It writes below a folder of its
own, which takes its name only when everything was written and read again; see `pseudolabel.formats.export`.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar, Literal

from pseudolabel import rle
from pseudolabel.candidates import Box
from pseudolabel.formats.outlines import Ring, joined, mask_parts, one_ring

Row = dict[str, Any]
Images = Literal["copy", "link", "none"]
Segmentation = Literal["rle", "uncompressed", "polygon"]
Parts = Literal["largest", "bridge", "split"]
Holes = Literal["fill", "bridge"]
Ids = Literal["keep", "contiguous"]


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """How a profile spells what it writes; each profile reads those that it has a use for."""

    images: Images = "copy"
    segmentation: Segmentation = "rle"
    parts: Parts = "bridge"
    holes: Holes = "bridge"
    ids: Ids = "contiguous"


@dataclass(frozen=True, slots=True)
class Category:
    """A class: `id` as it is written, `place` among all classes from 0, `record` with what else is known of it."""

    id: int
    place: int
    name: str
    record: Row


@dataclass(frozen=True, slots=True)
class About:
    """What is said once: the classes, and COCO's `info` and `licenses` of the data."""

    categories: Sequence[Category]
    info: Row
    licenses: Sequence[Any]
    splits: Sequence[str]  # in their order, each with at least one image


@dataclass(frozen=True, slots=True)
class ExportObject:
    """One label."""

    id: int
    category: Category
    mask: rle.Rle | None  # None: its box is all that is known
    box_xywh: Box  # of the mask, or the given one where there is no mask
    score: float
    is_crowd: bool
    attributes: Row  # flat: score, decision and so on, and the user's own
    fields: Row = field(default_factory=dict)  # the user's own fields of the annotation


@dataclass(frozen=True, slots=True)
class ExportImage:
    """One image with its labels."""

    key: str
    id: int
    name: PurePosixPath  # safe and unlike all others, also without its suffix
    file_name: str  # as the user knows it
    size_hw: tuple[int, int]
    split: str
    objects: tuple[ExportObject, ...]
    extra: Row  # licence, addresses, dates and what else the source says of it
    load: Callable[[], bytes]  # a file of the picture in the frame of the masks
    locate: Callable[[], str | None]  # where such a file stands on this disk; None where there is none

    @property
    def masked(self) -> tuple[ExportObject, ...]:
        """Single objects with a mask."""
        return tuple(one for one in self.objects if one.mask is not None and not one.is_crowd)


class Profile(ABC):
    """Writes one format.

    Args:
        folder: empty, and there.
    """

    takes_boxes: ClassVar[bool] = False  # an object may have a box and no mask
    about_boxes: ClassVar[str] = ""  # what to know where there are such
    takes_crowds: ClassVar[bool] = False
    wants_val: ClassVar[bool] = False  # its tools want a part of the images to validate on
    one_owner: ClassVar[bool] = False  # a pixel belongs to one object at most
    about_loss: ClassVar[str] = ""  # what does not survive, for people

    def __init__(self, folder: Path, about: About, options: ExportOptions) -> None:
        self.folder, self.about, self.options = folder, about, options

    def image_path(self, image: ExportImage) -> PurePosixPath | None:
        """Where the picture goes, below the folder; None where it is no file of its own."""
        return PurePosixPath("images") / image.name

    @abstractmethod
    def add(self, image: ExportImage) -> None:
        """Write an image's labels."""

    def close(self) -> None:  # noqa: B027 - many formats have a file per image and no more
        """Write what can be written when all images are known."""

    @abstractmethod
    def reread(self, image: ExportImage) -> list[rle.Rle | None]:
        """The masks of `image.objects`, each as the written files have it; asked of every image, in the order of `add`.

        None stands for a mask that the files do not have: of a box alone, or of an object that became none.
        """

    @abstractmethod
    def next_step(self, out: Path) -> str:
        """What to type to train with the folder `out`, or to open it."""


def object_rings(mask: rle.Rle, *, parts: Parts, holes: Holes) -> list[Ring]:
    """The outline of a mask as rings in pixels: one, or with `split` one for each part."""
    found = mask_parts(rle.decode_crop(mask))
    rings = [one_ring(part) if holes == "bridge" else part.outer for part in found]
    if parts == "largest":
        return rings[:1]
    return [joined(rings)] if parts == "bridge" else rings


def filled(rings: Sequence[Sequence[float]], size_hw: tuple[int, int]) -> rle.Rle:
    """The mask of rings, filled as pycocotools does: the union of all of them."""
    return rle.from_segmentation([list(ring) for ring in rings], size_hw)
