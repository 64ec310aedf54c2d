"""A training that is asked to end by a signal ends between two steps, with a checkpoint."""

import signal
import threading
from types import FrameType
from typing import Any

STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)


class StopRequest:
    """Notes these signals instead of obeying them; whoever handled them before does so again afterwards.

    A second Ctrl-C is obeyed at once. Outside of the main thread Python handles no signals, and nothing is noted.
    """

    def __init__(self) -> None:
        self.received = 0  # the first signal's number, 0 before one came
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in STOP_SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        del frame
        if number == self.received == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = self.received or number  # Slurm and srun may send the same one twice
