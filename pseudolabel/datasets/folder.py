"""A bare folder of images, without boxes.

Taken are all files that are named like images (also of formats that cannot be read, so that they are seen to be
refused) and files of any other name that begin like one of the formats in `images.FORMATS`. Names with a leading dot
are passed over, files that are neither named nor begin like images are, too; `ignored_files` counts the latter.
Image ids count from 1 in the order of the sorted paths.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pseudolabel.datasets.manifest import image_row, rejected_image
from pseudolabel.errors import InputError, RejectError
from pseudolabel.images import SIGNATURE_BYTES, ExifRule, check_name, has_known_signature, read_file
from pseudolabel.sources.names import named_like_image


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
        self._root = images_root
        self._paths, self._linked_folders = _listed(images_root)

    def rows(self) -> Iterator[dict[str, Any]]:
        """One row per image, sorted by path."""
        number = 0
        for path in self._paths:
            if not _looks_like_image(self._root, path):
                self.ignored_files += 1
                continue
            number += 1
            yield _row(path, number)
        for path in self._linked_folders:
            number += 1
            error = RejectError("not_a_file", "a link to a folder is not followed")
            yield rejected_image(printable_key(path), number, None, error)


def printable_key(path: str) -> str:
    """A path as a key that a table can hold: bytes that are no UTF-8 become escapes with a backslash.

    No usable name has a backslash, so the key is nobody else's.
    """
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def image_paths(root: Path) -> list[str]:
    """Relative POSIX paths of what looks like an image below a folder, sorted; see the module.

    Raises:
        InputError: the folder cannot be listed.
    """
    return [path for path in _listed(root)[0] if _looks_like_image(root, path)]


def _row(path: str, number: int) -> dict[str, Any]:
    try:
        key = check_name(path)
    except RejectError as error:
        return rejected_image(printable_key(path), number, None, error)
    return image_row(key, number, file_name=path, size_hw=None, objects=[])


def _listed(root: Path) -> tuple[list[str], list[str]]:
    """Files, and links to folders, both as sorted paths relative to `root`."""
    files: list[str] = []
    linked_folders: list[str] = []
    waiting = [""]
    while waiting:
        folder = waiting.pop()
        for entry in _entries(root, folder):
            path = f"{folder}{entry.name}"
            if entry.is_dir(follow_symlinks=False):
                waiting.append(path + "/")
            else:
                (linked_folders if entry.is_symlink() and _is_folder(entry) else files).append(path)
    return sorted(files), sorted(linked_folders)


def _entries(root: Path, folder: str) -> list["os.DirEntry[str]"]:
    try:
        with os.scandir(os.path.join(root, folder)) as entries:
            return [entry for entry in entries if not entry.name.startswith(".")]
    except (PermissionError, FileNotFoundError, NotADirectoryError) as error:
        raise InputError(f"{root / folder}: cannot be listed: {error.strerror}") from None


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link in a circle
        return False


def _looks_like_image(root: Path, path: str) -> bool:
    if named_like_image(path):
        return True
    try:
        return has_known_signature(read_file(root, path, first_bytes=SIGNATURE_BYTES))
    except RejectError:
        return False
