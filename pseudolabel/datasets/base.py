"""What every reader is."""

from collections.abc import Iterator
from typing import Any, Protocol, runtime_checkable


@runtime_checkable
class Dataset(Protocol):
    """One data set. Made with `(images_root, annotations, options)`; the root is None for images in a store."""

    categories: list[dict[str, Any]]  # COCO's: id, name, and whatever else the source says
    info: dict[str, Any]
    licenses: list[Any]
    notes: list[str]  # what a user should know though it stops nothing; complete once `rows` has ended

    def rows(self) -> Iterator[dict[str, Any]]:
        """Rows of `records.MANIFEST`: one per image with its objects, and one per refused annotation.

        May be called once; a reader gives its memory back as it goes.
        """
