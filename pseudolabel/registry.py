"""A table of names: add an implementation in one file and one line, find it by name everywhere."""

import difflib
import importlib
from collections.abc import Iterable, Iterator
from typing import Any

from pseudolabel.errors import ConfigError


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`; did you mean 'boxinst'?` where a known name is near, else an empty string."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"; did you mean {near[0]!r}?" if near else ""


def load_target(target: str) -> Any:
    """What `module:attribute` names."""
    module, _, attribute = target.partition(":")
    return getattr(importlib.import_module(module), attribute)


class Registry:
    """Names to `module:attribute`, imported on first use, so that listing names costs nothing."""

    def __init__(self, kind: str, targets: dict[str, str]) -> None:
        self.kind = kind
        self._targets = dict(targets)

    def __iter__(self) -> Iterator[str]:
        return iter(self._targets)

    def __contains__(self, name: str) -> bool:
        return name in self._targets

    def load(self, name: str) -> Any:
        """The object behind `name`; `module:attribute` names one that is not in the table.

        Raises:
            ConfigError: no such name; the message gives the nearest one and the whole list.
        """
        target = name if ":" in name else self._targets.get(name)
        if target is None:
            known = ", ".join(self._targets)
            raise ConfigError(f"no {self.kind} called {name!r}{did_you_mean(name, self)} (known: {known})")
        return load_target(target)
