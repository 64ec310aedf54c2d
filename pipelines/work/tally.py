"""How many images were worked on, of shards that are not done yet: for people who wait.

A stage walks over its images through `counted`. In a worker the number stands in memory that its supervisor shares;
the supervisor adds what its workers did to the number of its own process, which the progress shows.
"""

from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

T = TypeVar("T")

_done = 0  # in this process, and told by workers
_shared: Any = None  # writable shared number, where this process is supervised


def share(number: Any) -> None:
    """Count from now on into `number`, too: an object with a `value` that another process sees."""
    global _shared
    _shared = number


def add(count: int) -> None:
    """So many images more were worked on."""
    global _done
    _done += count
    if _shared is not None:
        _shared.value += count


def done() -> int:
    """All that was counted here."""
    return _done


def counted(images: Iterable[T]) -> Iterator[T]:
    """The same images, each counted when the next one is asked for."""
    for image in images:
        yield image
        add(1)
