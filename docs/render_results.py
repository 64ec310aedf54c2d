"""Render docs/results.md from docs/results/*.json; `make results`."""

import json
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "tests" / "benchmarks"))

from bench import standing  # noqa: E402  (the path above is needed first)
from harness import format_rows  # noqa: E402

HEAD = """# Results

Rendered by `make results` from `docs/results/*.json`; each file was written by the command named with it. Speeds are
CPU seconds and ratios of two things measured in turns in one run.
"""


def render(result: dict[str, object]) -> str:
    """One section: the table, and where it comes from."""
    machine = result["machine"]
    assert isinstance(machine, dict)
    versions = result["versions"]
    assert isinstance(versions, dict)
    rows = result["rows"]
    assert isinstance(rows, list)
    origin = (
        f"`{result['command']}` at {result['commit']}, {result['date']}; {machine['cpu']}, {machine['cores']} cores, "
        f"GPU {machine['gpu'] or 'none'}; torch {versions.get('torch')}; seeds {result['seeds'] or 'none'}."
    )
    return f"## {result['name']}\n\nOn {result['on']}.\n\n{format_rows(rows)}\n\n{origin}\n"


def page() -> str:
    """All of docs/results.md."""
    results = [json.loads(path.read_text(encoding="utf-8")) for path in sorted((HERE / "results").glob("*.json"))]
    goals = f"## Speeds and their goals\n\n`make bench` measures them anew.\n\n{format_rows(standing())}\n"
    return "\n".join([HEAD, goals, *map(render, results)])


def main() -> None:
    """Write docs/results.md."""
    (HERE / "results.md").write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
