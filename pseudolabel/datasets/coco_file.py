"""A COCO file as a whole, for those who measure against it or learn from it: every record has the form it must have.

The `shard` stage reads boxes row by row and refuses single rows (`datasets/coco.py`). Here the file is somebody's
truth, predictions or labels: what is not sound is refused as a whole, with its place.
"""

import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from pseudolabel.datasets.json_file import read_object
from pseudolabel.datasets.own_ids import with_whole_ids
from pseudolabel.errors import InputError

MAX_ID = 2**63 - 1
MAX_SIDE = 2**31 - 1
Row = dict[str, Any]


def read_coco(path: Path) -> Row:
    """The content of a COCO file, plain or gzipped: ids become whole numbers as in `own_ids`, sizes are positive.

    Whether an annotation's image and category are there, and whether its mask is one, is left to the caller.

    Raises:
        InputError: missing, not JSON, not a COCO file, or a record that is not sound; the message has its place.
    """
    content = with_whole_ids(read_object(path, {}))
    for name in ("images", "annotations"):
        if not isinstance(content.get(name), list):
            raise InputError(f"{path}: expected a COCO file, an object with lists 'images' and 'annotations'")
    if not isinstance(content.get("info") or {}, dict):
        raise InputError(f"{path}: 'info' is not an object")
    checks: dict[str, Callable[[Row], str]] = {"images": _image, "annotations": _annotation, "categories": _category}
    for name, check in checks.items():
        content[name] = _checked(content.get(name, []), check, where=f"{path}: {name}")
    return content


def whole(value: Any, largest: int = MAX_ID) -> int | None:
    """A whole number from 0 to `largest`, be it written 7 or 7.0; None for anything else."""
    if type(value) is float and value.is_integer():
        value = int(value)
    return value if type(value) is int and 0 <= value <= largest else None


def _checked(rows: Any, check: Callable[[Row], str], *, where: str) -> list[Row]:
    if not isinstance(rows, list):
        raise InputError(f"{where}: not a list")
    places: dict[int, int] = {}
    for place, row in enumerate(rows):
        if not isinstance(row, dict):
            raise InputError(f"{where}[{place}]: expected an object, got {row!a:.60}")
        problem = _whole_numbers(row, ("id",)) or check(row)
        if problem:
            raise InputError(f"{where}[{place}]{_named(row)}: {problem}")
        if row["id"] in places:
            raise InputError(f"{where}[{place}].id: {row['id']} is the id of place {places[row['id']]}, too")
        places[row["id"]] = place
    return rows


def _image(row: Row) -> str:
    for name in ("width", "height"):
        if not whole(row.get(name), MAX_SIDE):
            return f"{name} is {row.get(name)!a:.60}, expected a positive whole number"
        row[name] = int(row[name])
    name = row.get("file_name", "")
    return "" if isinstance(name, str) else f"file_name is {name!a:.60}, expected text"


def _annotation(row: Row) -> str:
    problem = _whole_numbers(row, ("image_id", "category_id"))
    crowd = row.get("iscrowd")
    if not isinstance(crowd, str | int | float | None) or crowd not in (None, 0, 1, "0", "1"):
        return f"iscrowd is {crowd!a:.60}, expected 0 or 1"
    if not isinstance(row.get("attributes") or {}, dict):
        return f"attributes is {row['attributes']!a:.60}, expected an object"
    return problem or _numbers(row)


def _numbers(row: Row) -> str:
    box = row.get("bbox")
    if box is not None and not (isinstance(box, list) and len(box) == 4 and all(map(_finite, box))):
        return f"bbox is {box!a:.60}, expected four numbers"
    for name in ("score", "area"):
        if row.get(name) is not None and not _finite(row[name]):
            return f"{name} is {row[name]!a:.60}, expected a number"
    return ""


def _category(row: Row) -> str:
    return "" if isinstance(row.get("name"), str) else f"name is {row.get('name')!a:.60}, expected text"


def _whole_numbers(row: Row, names: Iterable[str]) -> str:
    for name in names:
        value = whole(row.get(name))
        if value is None:
            return f"{name} is {row.get(name)!a:.60}, expected a whole number from 0"
        row[name] = value
    return ""


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _named(row: Row) -> str:
    name = row.get("file_name", row.get("id"))
    return f" ({name!a:.60})" if isinstance(name, str | int) else ""
