"""Where the categories of predictions and those of a ground-truth file meet: by their names."""

from collections.abc import Mapping, Sequence
from typing import Any

from pseudolabel.errors import InputError
from pseudolabel.segmenters.class_map import match_classes


def file_ids(categories: Sequence[Mapping[str, Any]], class_names: Mapping[int, str], *, where: str) -> dict[int, int]:
    """The id under which a file has each of some categories, for those that it has.

    Names decide, as `match_classes` compares them: a run that came without categories has ids of its own. A category
    without a name, or with its id for one, is the file's of the same id.

    Args:
        categories: `id` and `name` of each.
        class_names: of the file, by id.

    Raises:
        InputError: the file has none of them.
    """
    named = [row for row in categories if str(row.get("name", row["id"])) != str(row["id"])]
    places = match_classes([str(row["name"]) for row in named], class_names).index_of
    ids = {int(row["id"]): int(row["id"]) for row in categories if row not in named and int(row["id"]) in class_names}
    ids |= {int(named[place]["id"]): number for number, place in reversed(list(places.items()))}
    if not ids:
        ours = ", ".join(str(row.get("name", row["id"])) for row in categories)
        raise InputError(f"{where}: none of its classes ({', '.join(class_names.values())}) is one of ours ({ours})")
    return ids


def renumbered(rows: Sequence[Mapping[str, Any]], ids: Mapping[int, int]) -> list[dict[str, Any]]:
    """Rows with a `category_id` under other ids; those of categories that have none are left out."""
    return [{**row, "category_id": ids[row["category_id"]]} for row in rows if row["category_id"] in ids]
