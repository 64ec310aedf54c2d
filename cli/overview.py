"""docs/commands.md out of the table of commands: `python -m pseudolabel.cli.overview docs/commands.md`."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

from pseudolabel.pipelines.graph import COMMANDS, ORDER, Section

_HEAD = """# Commands

`pseudolabel COMMAND --help` shows an example and the options that matter, `--help-all` the rest. Every option can also
be set by a variable, as `PSEUDOLABEL_FUSE_KEEP_SCORE=0.7`, or in a run file's section of that command; what is typed
wins over the variable, and that over the file. A run file may have these sections; they run in this order:
"""


def overview() -> str:
    """The page."""
    order = f"{', '.join(f'`{name}`' for name in ORDER)}."
    return "\n".join([_HEAD, order, *(line for section in get_args(Section) for line in _section(section))]) + "\n"


def _section(section: str) -> Iterator[str]:
    yield from ["", f"## {section}", "", "| command | what it does | for example |", "|---|---|---|"]
    for name, entry in COMMANDS.items():
        if entry.section == section and not entry.hidden:
            yield f"| `{name}` | {entry.help} | `pseudolabel {name} {entry.example}` |"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(overview(), encoding="utf-8")
