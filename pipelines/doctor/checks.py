"""What a check of `doctor` says."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

State = Literal["ok", "warn", "fail"]
MARKS: dict[State, str] = {"ok": "ok  ", "warn": "warn", "fail": "FAIL"}


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at: how it is, and what to do where it is not well."""

    name: str
    state: State
    found: str
    todo: str = ""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def line(self) -> str:
        """For people."""
        todo = f"\n{'':28}-> {self.todo}" if self.todo else ""
        return f"{MARKS[self.state]}  {self.name:<22}{self.found}{todo}"


def ok(name: str, found: str) -> Check:
    """All is well."""
    return Check(name, "ok", found)


def warn(name: str, found: str, todo: str) -> Check:
    """Work goes on, slower or with worse results."""
    return Check(name, "warn", found, todo)


def fail(name: str, found: str, todo: str) -> Check:
    """Something will end with an error."""
    return Check(name, "fail", found, todo)
