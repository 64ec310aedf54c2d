"""Given boxes as the stages around a segmenter see them, by its own class indices, and rows of their candidates."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pseudolabel import records
from pseudolabel.pipelines.run.conservation import COLORS
from pseudolabel.pipelines.run.plan import Plan

if TYPE_CHECKING:
    from pseudolabel.segmenters.candidates import Box, Candidate


class SemanticBoxes:
    """Knows which class of a segmenter is which category of the run; a list of classes is matched once."""

    def __init__(self, plan: Plan) -> None:
        self._categories = {category["id"]: category["name"] for category in plan.categories}
        self._indices: dict[tuple[str, ...], Mapping[int, int]] = {}

    def of(self, objects: Sequence[Mapping[str, Any]], classes: tuple[str, ...]) -> "list[Box]":
        """Boxes of an image; a crowd is nobody's candidate, and its box claims nothing from others."""
        from pseudolabel.segmenters.candidates import Box

        index_of = self._matched(classes)
        boxes = []
        for given in objects:
            x, y, width, height = given["bbox_xywh"]
            index = None if given["iscrowd"] else index_of.get(given["category_id"])
            boxes.append(Box((x, y, x + width, y + height), given["category_id"], index, given["iscrowd"]))
        return boxes

    def _matched(self, classes: tuple[str, ...]) -> Mapping[int, int]:
        """Class index by category id."""
        from pseudolabel.segmenters.class_map import match_classes

        if classes not in self._indices:
            self._indices[classes] = match_classes(classes, self._categories).index_of
        return self._indices[classes]


def candidate_rows(
    image: Mapping[str, Any], candidates: "Sequence[Sequence[Candidate]]", *, source: str, stage: str
) -> list[dict[str, Any]]:
    """One row per candidate of an image's objects; one `empty` row where none has any.

    Args:
        source: of the masks for which the segmenter knew the class; the others are of box and colours alone.
    """
    key = {"image_key": image["image_key"]}
    rows = [
        key
        | {
            "annotation_id": given["annotation_id"],
            "source": source if one.knows_class else COLORS,
            "category_id": given["category_id"],
            "box_xyxy": list(one.box_xyxy),
            "box_score": one.box_score,
            "box_iou": one.box_iou,
            "mask": records.soft_mask_to_struct(one.mask),
            "knows_class": one.knows_class,
        }
        | records.ok(stage)
        for given, several in zip(image["objects"] or [], candidates, strict=True)
        for one in several
    ]
    return rows or [key | records.empty(stage)]
