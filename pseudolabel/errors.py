"""The errors that a user can cause or cure. Anything else that is raised is our bug and keeps its traceback.

Each class carries the exit code with which the command line ends (docs/architecture.md lists them).
"""

import re
import signal

_USER = re.compile(r"(?<=://)[^/@\s]*@")
_SECRET = re.compile(r"(?i)([?&][^=&#\s]*(?:secret|signature|token|password|key|credential)[^=&#\s]*=)[^&#\s'\"]+")


class PseudolabelError(Exception):
    """What went wrong, where, what was wanted, what was found, and what to type next."""

    exit_code = 2


class ConfigError(PseudolabelError):
    """An option, key or value that cannot be used."""


class InputError(PseudolabelError):
    """A file that the user gave is missing, damaged or says something impossible."""


class StaleOutputError(PseudolabelError):
    """Outputs of another configuration stand where this run would write."""


class IncompleteError(PseudolabelError):
    """The run ended, but shards are missing or too many rows were rejected."""

    exit_code = 3


class MachineError(PseudolabelError):
    """The machine, not the input: a device, the disk, a permission."""

    exit_code = 4


class PassingFaultError(MachineError):
    """A fault of a machine or of a store that may be gone at the next attempt."""


class QualityGateError(PseudolabelError):
    """A figure fell below the limit that the user had set."""

    exit_code = 5


class SignalStopError(PseudolabelError):
    """A signal ended the work at a safe point; the same command goes on from there."""

    exit_code = 75

    def __init__(self, received: signal.Signals) -> None:
        super().__init__(f"stopped by {received.name}; the same command goes on from here")
        if received is signal.SIGINT:
            self.exit_code = 130


class RejectError(Exception):
    """One image or annotation cannot be used: it becomes a row with this reason, and the shard goes on.

    Args:
        reason: one of `pseudolabel.records.REASONS`.
        detail: what was found, at most 300 characters are kept.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail[:300]


def hide_credentials(text: str) -> str:
    """A text in which user:password of URLs and values of telling query keys are gone."""
    return _SECRET.sub(r"\1***", _USER.sub("***@", text))
