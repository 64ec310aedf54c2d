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
from pseudolabel.errors import InputError, RejectError
from pseudolabel.images import ExifRule, check_name
from pseudolabel.sources.folder import Folder
from pseudolabel.sources.listing import files_below, printable_key


class FolderDataset:
    """Images below a folder."""

    def __init__(self, images_root: Path, annotations: Path | None = None, *, exif: ExifRule = "transpose") -> None:
        """Lists the folder.

        Raises:
            InputError: annotations are given, which a bare folder has none of, or the folder cannot be listed.
        """
        if annotations is not None:
            raise InputError(f"{annotations}: a bare folder has no annotations; name another format or leave them out")
        self.categories: list[dict[str, Any]] = []
        self.info: dict[str, Any] = {}
        self.licenses: list[Any] = []
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
