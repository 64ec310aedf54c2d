"""What lies below a folder of images, as sorted paths."""

import os
from pathlib import Path

from pseudolabel.errors import InputError


def files_below(root: Path) -> tuple[list[str], list[str]]:
    """Files, and links to folders, as sorted POSIX paths relative to `root`; names with a leading dot are left out.

    Raises:
        InputError: a folder cannot be listed.
    """
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


def printable_key(path: str) -> str:
    """A path as a key that a table can hold: bytes that are no UTF-8 become escapes with a backslash.

    No usable name has a backslash, so the key is nobody else's.
    """
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
