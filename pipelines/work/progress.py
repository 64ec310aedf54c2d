"""How far a stage is, in images: a bar on a terminal, one heartbeat line every 30 seconds where stderr is none."""

import sys
import threading
import time
from typing import Any

from tqdm import tqdm

from pseudolabel.pipelines.work import tally

HEARTBEAT_S = 30.0
_BAR_S = 0.5


class ShardProgress:
    """Counts the images of one stage on stderr: those of ended shards, and those that workers here are through with.

    Args:
        total, done: shards.
        images: of all those shards, as far as anybody knows.
    """

    def __init__(self, stage: str, *, total: int, done: int, images: int = 0) -> None:
        self._stage, self._total, self._done = stage, total, done
        self._images, self._tally_at_start, self._started_with = images, tally.done(), done
        self._shown = 0
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
            self._shown = self._images_done()
            self._bar = tqdm(total=self._images, initial=self._shown, desc=self._stage, unit="image", leave=False)
        self._thread = threading.Thread(target=self._beat, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        if self._bar is not None:
            self._bar.close()

    def ended(self, shard: int) -> None:
        """One attempt at a shard is over."""
        del shard
        self._done += 1

    def retry(self, count: int) -> None:
        """`count` shards are to be tried again."""
        if not count:
            return
        self._done -= count
        self._tally_at_start = tally.done()
        self._started_with = self._done
        tqdm.write(f"{self._stage}: {count} shards failed, trying again", file=sys.stderr)

    def line(self) -> str:
        """One line for a log."""
        images = self._images_done()
        share = images / self._images if self._images else self._done / max(self._total, 1)
        at_start = self._started_with / max(self._total, 1)
        left = f"{self.seconds * (1 - share) / (share - at_start):.0f} s" if share > at_start else "unknown"
        return (
            f"{self._stage}: {images}/{self._images} images, {self._done}/{self._total} shards, "
            f"{self.seconds:.0f} s, left {left}"
        )

    def _images_done(self) -> int:
        """Of ended shards by their share; of those in work as the tally says."""
        worked_on = self._images * self._started_with // max(self._total, 1) + tally.done() - self._tally_at_start
        return min(self._images, max(worked_on, self._images * self._done // max(self._total, 1)))

    def _beat(self) -> None:
        while not self._stop.wait(_BAR_S if self._bar is not None else HEARTBEAT_S):
            if self._bar is None:
                print(self.line(), file=sys.stderr, flush=True)
                continue
            now = self._images_done()
            self._bar.update(now - self._shown)
            self._shown = now
