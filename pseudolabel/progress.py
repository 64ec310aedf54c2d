"""How far a long piece of work is: a bar on a terminal or in a notebook, else a line every 30 seconds."""

import sys
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

from tqdm import tqdm

T = TypeVar("T")
HEARTBEAT_S = 30.0


class Progress:
    """Counts steps, images or whatever a piece of work consists of, on stderr.

    Args:
        name: what works, such as `train-teacher`.
        total: how many there are.
        unit: one of them.
        done: how many an earlier, stopped attempt has done.
        shown: False in all processes of a training but the first.
        at_once: whether a log gets a line at the first one, not only after 30 seconds.
    """

    def __init__(
        self, name: str, total: int, *, unit: str, done: int = 0, shown: bool = True, at_once: bool = False
    ) -> None:
        self._name, self._total, self._unit, self._done = name, total, unit, done
        self._at_start, self._shown, self._at_once = done, shown and done < total, at_once
        self._note, self._started = "", time.monotonic()
        self._bar: tqdm[Any] | None = None
        self._ended, self._beats = threading.Event(), threading.Thread(target=self._beat, daemon=True)

    def __enter__(self) -> "Progress":
        self._started = time.monotonic()
        if self._shown and has_screen():
            self._bar = tqdm(total=self._total, initial=self._done, desc=self._name, unit=self._unit, leave=False)
        elif self._shown:
            self._beats.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        if self._bar is not None:
            self._bar.close()
        if self._beats.is_alive():
            self._beats.join()

    @property
    def seconds(self) -> float:
        """Since the work began."""
        return time.monotonic() - self._started

    def advance(self, count: int = 1, note: str = "") -> None:
        """So many more are done; fewer, where some have to be done again. `note` is shown beside the count."""
        says = self._shown and self._at_once and self._done == self._at_start
        self._done, self._note = self._done + count, note
        if self._bar is not None:
            self._bar.set_postfix_str(note, refresh=False)
            self._bar.update(count)
        elif says:
            self._say()

    def line(self) -> str:
        """`train-teacher: step 24/72, loss 0.43, 0.6 steps/s, 80 s left`."""
        rate = (self._done - self._at_start) / max(self.seconds, 1e-9)
        parts = [f"{self._unit} {self._done}/{self._total}", self._note]
        if rate > 0:
            parts += [f"{rate:.{1 if rate >= 0.1 else 3}f} {self._unit}s/s"]
            parts += [f"{duration((self._total - self._done) / rate)} left"]
        return f"{self._name}: " + ", ".join(part for part in parts if part)

    def _beat(self) -> None:
        while not self._ended.wait(HEARTBEAT_S):
            self._say()

    def _say(self) -> None:
        print(self.line(), file=sys.stderr, flush=True)


def tracked(items: Sequence[T], name: str, *, unit: str) -> Iterator[T]:
    """The items one by one, their progress on stderr."""
    with Progress(name, len(items), unit=unit) as progress:
        for item in items:
            yield item
            progress.advance()


def has_screen() -> bool:
    """Whether somebody looks at stderr who wants a bar: on a terminal, or in a notebook, which is no terminal."""
    interactive = sys.modules.get("IPython")
    shell = interactive.get_ipython() if interactive is not None else None
    return sys.stderr.isatty() or type(shell).__name__ == "ZMQInteractiveShell"


def duration(seconds: float) -> str:
    """`80 s`, `14 min`, `3 h 20 min`."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"
