"""How far a long piece of work is: a bar on a terminal or in a notebook, else a line at once and every 30 seconds."""

import sys
import threading
import time
from typing import Any

from tqdm import tqdm

HEARTBEAT_S = 30.0


class Progress:
    """Counts steps, images or whatever a piece of work consists of, on stderr.

    Args:
        name: what works, such as `train-teacher`.
        total: how many there are.
        unit: one of them.
        done: how many an earlier, stopped attempt has done.
        shown: False in all processes of a training but the first.
    """

    def __init__(self, name: str, total: int, *, unit: str, done: int = 0, shown: bool = True) -> None:
        self._name, self._total, self._unit, self._done = name, total, unit, done
        self._at_start, self._shown = done, shown and done < total
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
        first = self._done == self._at_start
        self._done, self._note = self._done + count, note
        if self._bar is not None:
            self._bar.set_postfix_str(note, refresh=False)
            self._bar.update(count)
        elif first and self._shown:
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
