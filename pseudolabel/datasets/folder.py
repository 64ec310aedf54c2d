"""A bare folder of images, without boxes.

Taken are all files that are named like images (also of formats that cannot be read, so that they are seen to be
refused) and files of any other name that begin like one of the formats in `images.FORMATS`. Names with a leading dot
are passed over, files that are neither named nor begin like images are, too; `ignored_files` counts the latter.
Image ids count from 1 in the order of the sorted paths.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pseudolabel.datasets.manifest import image_row, rejected_image
from pseudolabel.datasets.options import ReadOptions
from pseudolabel.errors import InputError, RejectError
from pseudolabel.sources.folder import Folder, check_name
from pseudolabel.sources.listing import files_below, printable_key

_ANNOTATIONS = ("data.yaml", "_annotations.coco.json", "annotations.json", "annotations.xml", "obj.data", "boxes.json")


class FolderDataset:
    """Images below a folder."""

    def __init__(
        self, images_root: Path | None, annotations: Path | None = None, options: ReadOptions = ReadOptions()
    ) -> None:
        """Lists the folder.

        Raises:
            InputError: annotations are given, which a bare folder has none of, or the folder cannot be listed.
        """
        if annotations is not None:
            raise InputError(f"{annotations}: a bare folder has no annotations; name another format or leave them out")
        if images_root is None:
            raise InputError("a bare folder lies on this machine; images elsewhere are read by their source")
        self.categories: list[dict[str, Any]] = []
        self.info: dict[str, Any] = {}
        self.licenses: list[Any] = []
        self.notes: list[str] = _annotations_beside(images_root)
        self.ignored_files = 0
        self._folder = Folder(images_root)
        self._paths, self._linked_folders = files_below(images_root)

    def rows(self) -> Iterator[dict[str, Any]]:
        """One row per image, sorted by path."""
        number = 0
        for path in self._paths:
            if not self._folder.holds_image(path):
                self.ignored_files += 1
                continue
            number += 1
            yield _row(path, number)
        for path in self._linked_folders:
            number += 1
            error = RejectError("not_a_file", "a link to a folder is not followed")
            yield rejected_image(printable_key(path), number, None, error)


def _row(path: str, number: int) -> dict[str, Any]:
    try:
        key = check_name(path)
    except RejectError as error:
        return rejected_image(printable_key(path), number, None, error)
    return image_row(key, number, file_name=path, size_hw=None, objects=[])


def _annotations_beside(root: Path) -> list[str]:
    """A note for whoever forgot to name the annotations."""
    there = next(
        (path for folder in (root, root.parent) for name in _ANNOTATIONS if (path := folder / name).is_file()), None
    )
    return [f"no boxes are read; if {there} has them, add  --annotations {there}"] if there else []
