"""Given boxes with their classes in a segmenter's list; a list of classes is matched once."""

from collections.abc import Iterable, Mapping

from pseudolabel.candidates import GivenBox, with_classes
from pseudolabel.segmenters.class_map import match_classes


class KnownClasses:
    """Knows which class of a segmenter is which category.

    Args:
        categories: names by category id.
    """

    def __init__(self, categories: Mapping[int, str]) -> None:
        self._categories = categories
        self._indices: dict[tuple[str, ...], Mapping[int, int]] = {}

    def of(self, boxes: Iterable[GivenBox], classes: tuple[str, ...]) -> list[GivenBox]:
        """The boxes of an image; a crowd is nobody's candidate, and has no class."""
        if classes not in self._indices:
            self._indices[classes] = match_classes(classes, self._categories).index_of
        return with_classes(boxes, self._indices[classes])
