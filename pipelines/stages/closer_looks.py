"""Closer looks at the boxes of a batch of images, for `infer-semantic`."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from pseudolabel.errors import RejectError
from pseudolabel.pipelines.stages.semantic_boxes import SemanticBoxes

if TYPE_CHECKING:
    from pseudolabel.masks import SoftMask
    from pseudolabel.segmenters.base import Photo
    from pseudolabel.segmenters.network import NetworkSegmenter
    from pseudolabel.segmenters.zoom import Look

Looks: TypeAlias = "list[tuple[int, SoftMask | RejectError]]"  # annotation ids and what was seen


class CloserLooks:
    """Looks at every box whose class the segmenter knows.

    Args:
        rooms: what each look shows around the box, in longer sides of it.
    """

    def __init__(self, segmenter: "NetworkSegmenter", boxes: SemanticBoxes, rooms: Sequence[float]) -> None:
        self._segmenter, self._boxes, self._rooms = segmenter, boxes, tuple(rooms)

    def of(self, batch: "Sequence[tuple[dict[str, Any], Photo]]") -> "dict[str, Looks]":
        """What was seen, by image key: annotation ids, each as often as it was looked at, in the order of the rooms.

        Args:
            batch: rows of the manifest with the decoded image.
        """
        wanted = [one for row, photo in batch for one in self._wanted(row, photo)]
        masks = self._segmenter.look([look for _, _, look in wanted])
        found: dict[str, Looks] = {row["image_key"]: [] for row, _ in batch}
        for (key, annotation, _), mask in zip(wanted, masks, strict=True):
            found[key].append((annotation, mask))
        return found

    def _wanted(self, row: dict[str, Any], photo: "Photo") -> "Iterator[tuple[str, int, Look]]":
        from pseudolabel.segmenters.candidates import box_window
        from pseudolabel.segmenters.zoom import Look, crop_around

        objects, size_hw = row["objects"] or [], photo.size_hw
        for given, box in zip(objects, self._boxes.of(objects, self._segmenter.classes), strict=True):
            if box.class_index is not None:
                for room in self._rooms:
                    crop = crop_around(box.xyxy, size_hw, room)
                    look = Look(photo, crop, box.class_index, box_window(box.xyxy, size_hw).grid)
                    yield row["image_key"], given["annotation_id"], look
