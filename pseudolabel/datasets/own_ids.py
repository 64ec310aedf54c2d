"""Ids as people have them: whole numbers, numbers in quotes, names; and the numbers that stand for them here."""

import re
from collections.abc import Sequence
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
