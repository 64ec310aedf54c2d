"""Closer looks at the boxes of some images, several at once."""

from collections.abc import Iterator, Sequence
from typing import TypeAlias

from pseudolabel.candidates import GivenBox
from pseudolabel.errors import RejectError
from pseudolabel.masks import SoftMask
from pseudolabel.segmenters.base import Photo
from pseudolabel.segmenters.candidates import box_window
from pseudolabel.segmenters.known_classes import KnownClasses
from pseudolabel.segmenters.network import NetworkSegmenter
from pseudolabel.segmenters.zoom import Look, crop_around

ROOMS = (0.5, 1.0)  # what each look shows around the box, in longer sides of it
Looks: TypeAlias = list[tuple[int, SoftMask | RejectError]]  # annotation ids and what was seen


class CloserLooks:
    """Looks at every box whose class the segmenter knows.

    Args:
        rooms: what each look shows around the box, in longer sides of it.
    """

    def __init__(self, segmenter: NetworkSegmenter, known: KnownClasses, rooms: Sequence[float] = ROOMS) -> None:
        self._segmenter, self._known, self._rooms = segmenter, known, tuple(rooms)

    def of(self, batch: Sequence[tuple[Sequence[GivenBox], Photo]]) -> list[Looks]:
        """What was seen, image by image: annotation ids, each as often as it was looked at, in the order of the rooms.

        Args:
            batch: the boxes of each image with the decoded image.
        """
        wanted = [(place, *one) for place, (boxes, photo) in enumerate(batch) for one in self._wanted(boxes, photo)]
        masks = self._segmenter.look([look for _, _, look in wanted])
        found: list[Looks] = [[] for _ in batch]
        for (place, annotation, _), mask in zip(wanted, masks, strict=True):
            found[place].append((annotation, mask))
        return found

    def _wanted(self, boxes: Sequence[GivenBox], photo: Photo) -> Iterator[tuple[int, Look]]:
        for box in self._known.of(boxes, self._segmenter.classes):
            if box.class_index is not None and box.annotation_id is not None:
                for room in self._rooms:
                    crop = crop_around(box.box_xyxy, photo.size_hw, room)
                    look = Look(photo, crop, box.class_index, box_window(box.box_xyxy, photo.size_hw).grid)
                    yield box.annotation_id, look
