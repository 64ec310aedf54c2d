"""A table of names: add an implementation in one file and one line, find it by name everywhere."""

import difflib
import importlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from pseudolabel.errors import ConfigError
from pseudolabel.optional import absence_named


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`; did you mean 'boxinst'?` where a known name is near, else an empty string."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"; did you mean {near[0]!r}?" if near else ""


def no_such_file(path: Path, what: str = "file") -> str:
    """`deeplab.onnx: no such file`, with the file of its folder whose name is nearest, where one is near."""
    beside = [one.name for one in path.parent.iterdir()] if path.parent.is_dir() else []
    return f"{path}: no such {what}{did_you_mean(path.name, beside)}"


def no_such_model(path: Path) -> str:
    """The same of an ONNX file, with the command that lists where some are had."""
    return f"{no_such_file(path, 'ONNX file')}; known ones are listed by  pseudolabel models"


def load_target(target: str) -> Any:
    """What `module:attribute` names.

    Raises:
        MachineError: its module needs a library that a plain install does without.
    """
    module, _, attribute = target.partition(":")
    with absence_named():
        return getattr(importlib.import_module(module), attribute)


def installed(group: str, name: str) -> str | None:
    """The `module:attribute` that an installed package declares under an entry point's name, None where none does."""
    from importlib.metadata import entry_points  # a tenth of what `--help` takes

    for entry in entry_points(group=group, name=name):
        return entry.value
    return None


class Registry:
    """Names to `module:attribute`, imported on first use, so that listing names costs nothing.

    An installed package adds its own by an entry point of the group `pseudolabel.KIND`, which is looked for where a
    name is not in the table.

    Args:
        kind: what the names are of, as messages say it.
        targets: the table.
    """

    def __init__(self, kind: str, targets: dict[str, str]) -> None:
        self.kind = kind
        self._targets = dict(targets)
        self._trusted: set[str] = set()

    def register(self, name: str, target: str) -> None:
        """Add a name in this process; worker processes know what is in the table or installed."""
        self._targets[name] = target

    def __iter__(self) -> Iterator[str]:
        return iter(self._targets)

    def __contains__(self, name: str) -> bool:
        return self._target(name) is not None

    def trust(self, name: str) -> None:
        """Let `name` be `module:attribute`, code that is not in the table: the caller is code or typed it.

        Never called with what a file says: a config, a job or a run folder may come from anybody.
        """
        self._trusted.add(name)

    def load(self, name: str) -> Any:
        """The object behind `name`: one of the table, or a `module:attribute` that this process trusts.

        Raises:
            ConfigError: no such name; the message gives the nearest one and the whole list.
        """
        target = name if name in self._trusted and ":" in name else None if ":" in name else self._target(name)
        if target is None:
            known = ", ".join(self._targets)
            raise ConfigError(f"no {self.kind} called {name!r}{did_you_mean(name, self)} (known: {known})")
        return load_target(target)

    def _target(self, name: str) -> str | None:
        return self._targets.get(name) or installed(f"pseudolabel.{self.kind.replace(' ', '_')}", name)
