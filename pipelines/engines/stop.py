"""Signals that ask to stop: noted, so that work ends at a safe point."""

import contextlib
import signal
import time
from typing import Any

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


class StopSignals:
    """While active, notes signals that ask to stop instead of dying of them."""

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self.count = 0
        self._since = 0.0
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "StopSignals":
        with contextlib.suppress(ValueError):  # not the main thread: whoever owns it handles signals
            self._previous = {number: signal.signal(number, self._note) for number in STOP_SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def seconds_since(self) -> float:
        """Time since the first signal, 0 where there was none."""
        return time.monotonic() - self._since if self.received else 0.0

    def _note(self, number: int, _: object) -> None:
        self.count += 1
        if self.received is None:
            self.received = signal.Signals(number)
            self._since = time.monotonic()
