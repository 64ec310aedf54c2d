"""Closer looks at the boxes of some images, several at once."""

from collections.abc import Iterator, Sequence

from pseudolabel.candidates import GivenBox
from pseudolabel.errors import RejectError
from pseudolabel.segmenters.base import Looks, Photo, Seen
from pseudolabel.segmenters.candidates import box_window
from pseudolabel.segmenters.known_classes import KnownClasses
from pseudolabel.segmenters.network import NetworkSegmenter
from pseudolabel.segmenters.zoom import Crop, Look, crop_around, enlargement

ROOMS = (0.5, 1.0)  # what each look shows around the box, in longer sides of it


class CloserLooks:
    """Whole images, and looks at every box whose class the segmenter knows.

    Args:
        rooms: what each look shows around the box, in longer sides of it.
    """

    def __init__(self, segmenter: NetworkSegmenter, known: KnownClasses, rooms: Sequence[float] = ROOMS) -> None:
        self._segmenter, self._known, self._rooms = segmenter, known, tuple(rooms)

    def of(self, batch: Sequence[tuple[Sequence[GivenBox], Photo]]) -> list[Seen]:
        """Image by image the label map and what was seen of the boxes: annotation ids, each as often as it was looked
        at, in the order of the rooms; rooms that show the same are one look.

        Args:
            batch: the boxes of each image with the decoded image.
        """
        photos = [photo for _, photo in batch]
        logits = self._segmenter.logits(photos)
        sound = [(place, one) for place, one in enumerate(logits) if not isinstance(one, RejectError)]
        wanted = [(place, *one) for place, _ in sound for one in self._wanted(*batch[place])]
        masks = self._segmenter.look([look for *_, look in wanted], [(photos[place], one) for place, one in sound])
        looks: dict[int, Looks] = {place: [] for place, _ in sound}
        for (place, annotation, _), mask in zip(wanted, masks, strict=True):
            looks[place].append((annotation, mask))
        return [Seen(self._segmenter.reduced(photos[i], one), looks.get(i)) for i, one in enumerate(logits)]

    def _wanted(self, boxes: Sequence[GivenBox], photo: Photo) -> Iterator[tuple[int, Look]]:
        for box in self._known.of(boxes, self._segmenter.classes):
            if box.class_index is not None and box.annotation_id is not None:
                grid = box_window(box.box_xyxy, photo.size_hw).grid
                rooms: dict[Crop, float] = {}
                for room in self._rooms:
                    rooms.setdefault(crop_around(box.box_xyxy, photo.size_hw, room), room)
                for crop, room in rooms.items():
                    yield box.annotation_id, Look(photo, crop, box.class_index, grid, enlargement(room))
