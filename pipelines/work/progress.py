"""How far a stage is: a bar on a terminal, one heartbeat line every 30 seconds where stderr is none."""

import sys
import threading
import time
from typing import Any

from tqdm import tqdm

HEARTBEAT_S = 30.0


class ShardProgress:
    """Counts ended shards of one stage on stderr."""

    def __init__(self, stage: str, *, total: int, done: int) -> None:
        self._stage, self._total, self._done = stage, total, done
        self._at_start = done
        self._started = time.monotonic()
        self._bar: tqdm[Any] | None = None
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._started

    def __enter__(self) -> "ShardProgress":
        if self._done == self._total:
            return self
        if sys.stderr.isatty():
            self._bar = tqdm(total=self._total, initial=self._done, desc=self._stage, unit="shard", leave=False)
        else:
            self._thread = threading.Thread(target=self._beat, daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        if self._bar is not None:
            self._bar.close()
        if self._thread is not None:
            self._thread.join()

    def ended(self, shard: int) -> None:
        """One attempt at a shard is over."""
        del shard
        self._done += 1
        if self._bar is not None:
            self._bar.update()

    def retry(self, count: int) -> None:
        """`count` shards are to be tried again."""
        if not count:
            return
        self._done -= count
        tqdm.write(f"{self._stage}: {count} shards failed, trying again", file=sys.stderr)
        if self._bar is not None:
            self._bar.update(-count)

    def line(self) -> str:
        """One line for a log."""
        rate = (self._done - self._at_start) / max(self.seconds, 1e-9)
        left = f"{(self._total - self._done) / rate:.0f} s" if rate > 0 else "unknown"
        return f"{self._stage}: {self._done}/{self._total} shards, {self.seconds:.0f} s, left {left}"

    def _beat(self) -> None:
        while not self._stop.wait(HEARTBEAT_S):
            print(self.line(), file=sys.stderr, flush=True)
