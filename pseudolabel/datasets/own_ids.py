"""Ids as people have them: whole numbers, numbers in quotes, names; and the numbers that stand for them here."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

MAX_ID = 2**63 - 1
Key = int | str

_NUMBER = re.compile(r"\d{1,18}(?:\.0+)?")


def id_key(value: Any) -> Key | None:
    """What ids are compared by: 7, 7.0, "7" and "0007" are one id, any other text is itself; None for what is no id."""
    kind = type(value)
    if kind is int:
        return value if 0 <= value <= MAX_ID else str(value) if value.bit_length() < 256 else None
    if kind is float and value.is_integer():
        return id_key(int(value))
    if kind is not str:
        return None
    text = value.strip()
    return int(text.partition(".")[0]) if _NUMBER.fullmatch(text) else text[:300] or None


def numbered(keys: Sequence[Key | None], *, least: int = 0) -> list[int] | None:
    """The keys themselves where all are numbers from `least` on and no two are alike; else None: they are numbered."""
    numbers = [key for key in keys if type(key) is int and key >= least]
    return numbers if len(numbers) == len(keys) == len(set(numbers)) else None


def with_whole_ids(content: Mapping[str, Any]) -> dict[str, Any]:
    """A COCO file's content with whole numbers for ids, as the reader of boxes gives them to the same file.

    Annotation ids from 0 stay as they are; where they are no numbers, missing or not one of each, places count from 1.
    Records that are no objects, and references to nothing, are left as they are.
    """
    images, categories = (_numbers(content.get(name)) for name in ("images", "categories"))
    rows = content.get("annotations")
    annotations = rows if isinstance(rows, list) else []
    own = numbered([id_key(row.get("id")) for row in annotations if isinstance(row, dict)])
    changed = dict(content)
    for name, numbers in (("images", images), ("categories", categories)):
        if isinstance(content.get(name), list):
            changed[name] = [_renumbered(row, {"id": numbers}) for row in content[name]]
    if annotations:
        known = [_renumbered(row, {"image_id": images, "category_id": categories}) for row in annotations]
        ids = own if own is not None and len(own) == len(known) else range(1, len(known) + 1)
        changed["annotations"] = [
            {**row, "id": number} if isinstance(row, dict) else row for row, number in zip(known, ids, strict=True)
        ]
    return changed


def _numbers(rows: Any) -> dict[Key, int]:
    """The number of every record by its key: its own id, or from 1 where some are texts."""
    keys = [id_key(row.get("id")) for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
    own = all(type(key) is not str for key in keys)
    return {key: key if own and type(key) is int else place for place, key in enumerate(keys, 1) if key is not None}


def _renumbered(row: Any, numbers_of: Mapping[str, Mapping[Key, int]]) -> Any:
    if not isinstance(row, dict):
        return row
    found = {
        name: numbers.get(key) for name, numbers in numbers_of.items() if (key := id_key(row.get(name))) is not None
    }
    return row | {name: number for name, number in found.items() if number is not None}
