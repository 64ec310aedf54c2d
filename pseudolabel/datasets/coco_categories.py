"""The categories of a COCO file."""

from collections import Counter
from pathlib import Path
from typing import Any

from pseudolabel.datasets.coco_columns import Columns
from pseudolabel.datasets.own_ids import Key, id_key
from pseudolabel.errors import InputError

Row = dict[str, Any]


class Categories:
    """Categories under the numbers that they have here: their own ids, or from 1 where some of those are texts."""

    def __init__(self, rows: list[Row]) -> None:
        keys = [id_key(row["id"]) for row in rows]
        own = all(type(key) is int for key in keys)
        numbers = [key if own and type(key) is int else place for place, key in enumerate(keys, 1)]
        self.rows = [{**row, "id": number} for row, number in zip(rows, numbers, strict=True)]
        self._numbers = dict(zip(keys, numbers, strict=True))
        self._by_number: dict[int, int | None] = {}
        names = Counter(row["name"] for row in rows)
        for row in self.rows:  # an annotation may give the name for the id
            if names[row["name"]] == 1:
                self._numbers.setdefault(id_key(row["name"]), row["id"])

    def used(self, columns: Columns) -> set[int]:
        """Ids of the categories that have annotations; call it once all of these are there."""
        self._by_number = {
            number: self._numbers.get(columns.category_key(number)) for number in columns.category_numbers()
        }
        return {number for number in self._by_number.values() if number is not None}

    def number(self, number: int) -> int | None:
        """The id of the category that an annotation in `columns` means; None for none of these."""
        return self._by_number[number]


def checked_categories(path: Path, categories: Any) -> list[Row]:
    """The categories, each with a name and an id of its own.

    Raises:
        InputError: they are not such a list.
    """
    if not isinstance(categories, list):
        raise InputError(f"{path}: 'categories' is not a list")
    places: dict[Key, int] = {}
    for place, category in enumerate(categories):
        where = f"{path}: categories[{place}]"
        if not isinstance(category, dict) or not isinstance(category.get("name"), str):
            raise InputError(f"{where}: expected an object with id and name")
        key = id_key(category.get("id"))
        if key is None:
            raise InputError(f"{where}.id: expected a whole number from 0, got {ascii(category.get('id'))[:60]}")
        if key in places:
            raise InputError(f"{where}.id: {key} is categories[{places[key]}]'s id, too")
        places[key] = place
    return categories


def without_root(rows: list[Row], used: set[int]) -> tuple[list[Row], str]:
    """The categories without the one that Roboflow puts above all others, and a note for the user.

    It has no annotations and no class above it, and is what others name as theirs.
    """
    above = Counter(row.get("supercategory") for row in rows)
    roots = [
        row
        for row in rows
        if row["id"] not in used and row.get("supercategory") in (None, "", "none") and above[row["name"]]
    ]
    if len(roots) == 1 and len(rows) > 1 and above[roots[0]["name"]] == len(rows) - 1:
        kept = [row for row in rows if row is not roots[0]]
        return kept, f"category {roots[0]['id']} {roots[0]['name']!r} is above all others and has no boxes: left out"
    twice = sorted(name for name, count in Counter(row["name"] for row in rows).items() if count > 1)
    return (
        rows,
        f"several categories are called {', '.join(map(repr, twice))}; their ids tell them apart" if twice else "",
    )
