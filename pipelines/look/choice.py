"""Which objects are worth a picture: the worst, those that the sources disagree on, some of every class and reason."""

import heapq
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

from pseudolabel.pipelines.look.sample import RankedSample
from pseudolabel.pipelines.look.tally import REVIEWED, reasons_of
from pseudolabel.records import expected_iou

Row = dict[str, Any]
_OF_A_CLASS = 6
_OF_A_REASON = 12


@dataclass(frozen=True, slots=True)
class Chosen:
    """An object that is shown, and where it is from."""

    shard: int
    row: Row
    iou: float | None
    even: bool = False  # drawn evenly from all, so that it stands for the others


@dataclass(slots=True)
class Lowest:
    """The items of the lowest value so far, `most` at most; of equal ones those that came first."""

    most: int
    held: list[tuple[float, int, Any]] = field(default_factory=list)

    def add(self, value: float, order: int, item: Any) -> None:
        """Take an item into account; `order` is its place in the stream."""
        entry = (-value, -order, item)
        if len(self.held) < self.most:
            heapq.heappush(self.held, entry)
        elif self.most and entry[:2] > self.held[0][:2]:
            heapq.heapreplace(self.held, entry)

    def ranked(self) -> list[Any]:
        """The items, from the lowest value on."""
        return [item for *_, item in sorted(self.held, key=lambda entry: entry[:2], reverse=True)]


class Choice:
    """At most `most` objects of a stream of any length."""

    def __init__(self, most: int) -> None:
        self._most, self._seen = most, 0
        self._even = RankedSample(most // 3)
        self._worst, self._disputed = Lowest(most), Lowest(most // 4)
        self._classes: dict[int, Lowest] = defaultdict(lambda: Lowest(_OF_A_CLASS))
        self._reasons: dict[str, Lowest] = defaultdict(lambda: Lowest(_OF_A_REASON))

    def add(self, shard: int, row: Row, iou: float | None) -> None:
        """Take an object into account."""
        order, self._seen = self._seen, self._seen + 1
        if not self._most:
            return
        item, badness = Chosen(shard, row, iou), expected_iou(row) if iou is None else iou
        self._even.add((badness, order), item)
        if row["decision"] == "ignore" or row["decision_reason"] == REVIEWED:  # a person looked already
            return
        self._worst.add(badness, order, item)
        self._classes[row["category_id"]].add(badness, order, item)
        if row["agreement"] is not None:
            self._disputed.add(row["agreement"], order, item)
        for reason in reasons_of(row):
            self._reasons[reason].add(badness, order, item)

    def objects(self) -> list[Chosen]:
        """The chosen ones, each once: first those drawn evenly, then by turns of the other lists; the worst fill up."""
        even = [Chosen(one.shard, one.row, one.iou, even=True) for one in self._even.ranked()]
        lists = [self._worst, self._disputed, *self._reasons.values(), *self._classes.values()]
        found = {_key(one): one for one in even}
        for several in _by_turns([one.ranked() for one in lists]):
            if len(found) >= self._most:
                break
            found.setdefault(_key(several), several)
        return list(found.values())[: self._most]


def _by_turns(lists: list[list[Chosen]]) -> list[Chosen]:
    longest = max(map(len, lists), default=0)
    return [one[place] for place in range(longest) for one in lists if place < len(one)]


def _key(one: Chosen) -> tuple[Any, ...]:
    return (one.shard, one.row["image_key"], one.row["annotation_id"], *one.row["bbox_xywh"])
