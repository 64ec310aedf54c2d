"""Which image of a ground-truth file is which of a run, where their ids are not the same: by file names."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pseudolabel.datasets.names import canonical, clean_name
from pseudolabel.errors import InputError


def true_image_ids(
    ours: Sequence[Mapping[str, Any]], theirs: Sequence[Mapping[str, Any]], *, where: str, truth: str
) -> dict[int, int]:
    """The truth's id of every image of ours that it has: the one of the same path, else of the same name in any folder.

    Args:
        ours: rows of a COCO file's images, as are `theirs`.
        where: what our file is called in a message; `truth` is the other's name.

    Raises:
        InputError: not one name is in both.
    """
    paths, bases = _ids(theirs, _path), _ids(theirs, _base)
    seldom = _ids(ours, _base)  # a name in two folders of ours is told apart by its path alone
    found = {}
    for row in ours:
        number = paths.get(_path(row))
        if number is None and _base(row) in seldom:
            number = bases.get(_base(row))
        if number is not None:
            found[int(row["id"])] = number
    if ours and not found:
        raise InputError(
            f"{where}: none of its {len(ours)} images has the file name of one in {truth}; the first is "
            f"{ours[0].get('file_name')!r} here and {theirs[0].get('file_name') if theirs else None!r} there"
        )
    return found


def _ids(rows: Sequence[Mapping[str, Any]], name: Callable[[Mapping[str, Any]], str]) -> dict[str, int]:
    """Ids by name, of names that one image alone has."""
    counts = Counter(name(row) for row in rows)
    return {name(row): int(row["id"]) for row in rows if name(row) and counts[name(row)] == 1}


def _path(row: Mapping[str, Any]) -> str:
    given = row.get("file_name")
    return canonical(clean_name(given)) if isinstance(given, str) else ""


def _base(row: Mapping[str, Any]) -> str:
    return _path(row).rpartition("/")[2]
