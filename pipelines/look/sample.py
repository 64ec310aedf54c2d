"""A sample of a stream in memory that does not grow with it."""

import random
from typing import Any


class RankedSample:
    """A uniform sample of scored items, and always the lowest and the highest of all.

    Source: algorithm R (Vitter, 1985).

    Args:
        capacity: how many are held; a stream of no more is held whole.
    """

    def __init__(self, capacity: int, *, seed: int = 0) -> None:
        self._capacity, self._random, self._seen = capacity, random.Random(seed), 0
        self._held: list[tuple[Any, Any]] = []
        self._ends: dict[str, tuple[Any, Any]] = {}

    def add(self, key: Any, item: Any) -> None:
        """Take an item into account; `key` is what it is ranked by."""
        self._seen += 1
        if not self._ends or key < self._ends["low"][0]:
            self._ends["low"] = (key, item)
        if "high" not in self._ends or key > self._ends["high"][0]:
            self._ends["high"] = (key, item)
        if len(self._held) < self._capacity:
            self._held.append((key, item))
            return
        place = self._random.randrange(self._seen)
        if place < self._capacity:
            self._held[place] = (key, item)

    def ranked(self) -> list[Any]:
        """The items that are held, from the lowest key to the highest."""
        held = dict(self._held) | dict(self._ends.values())
        return [held[key] for key in sorted(held)]
