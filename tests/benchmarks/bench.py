"""All speeds with their goals: what was measured before, and what is measured now; `make bench`.

    python tests/benchmarks/bench.py                  # about half an hour of one core
    python tests/benchmarks/bench.py rle colour_field # these alone
    python tests/benchmarks/bench.py --keep           # the new figures become those that the next call compares with

Each figure is of one script's rows. `was` is the committed one of docs/results, `is` what the script finds now; a ratio
is ours against a plain implementation of the same formula in the same run. Ends with code 1 where a ratio has fallen
below half of what it was: machines differ, but not by that.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import format_rows

HERE = Path(__file__).resolve().parent
RESULTS = HERE.parents[1] / "docs" / "results"


@dataclass(frozen=True)
class Figure:
    """One number of a script's rows: that of the first case that starts like this."""

    script: str
    case: str
    goal: float
    key: str = "ratio"

    @property
    def more_is_better(self) -> bool:
        return self.key in ("ratio", "share")

    @property
    def name(self) -> str:
        return f"{self.script}: {self.case}" + ("" if self.more_is_better else f", {self.key}")

    def of(self, rows: Sequence[dict[str, Any]]) -> float | None:
        """The number; None where no row has the case."""
        return next((row.get(self.key) for row in rows if row["case"].startswith(self.case)), None)

    def verdict(self, found: float | None) -> str:
        if found is None:
            return "not measured"
        reached = found >= self.goal if self.more_is_better else found <= self.goal
        return "reached" if reached else "missed"


FIGURES = (
    Figure("random_walk", "64x64, 5 maps", 1000),
    Figure("random_walk", "96x96, 5 maps", 5000),
    Figure("random_walk", "128x128, 20 maps", 4000),
    Figure("centroids", "noise 1.0", 49),
    Figure("pairwise", "loss and gradient", 70),
    Figure("pairwise", "targets", 12),
    Figure("mask_head", "64 instances", 8),
    Figure("mask_head", "300 instances", 20),
    Figure("mask_head", "upsampling by 2", 2),
    Figure("fusion", "8 objects x 10 at stride 4, equations 2 and 5", 50),
    Figure("fusion", "8 objects x 6 at stride 4 + 3 at stride 8", 50),
    Figure("rle", "coco-dev encode crop", 25),
    Figure("rle", "coco-dev decode crop", 10),
    Figure("labels", "81 classes, 13 of them in the image, stride 4", 14),
    Figure("colour_field", "a candidate, 100 x 100 cells, 1 priors", 3.5),
    Figure("colour_field", "a candidate, 100 x 100 cells, 3 priors", 3.5),
    Figure("colour_field", "priors of 10 windows, 1000 boxes", 15.5),
    Figure("colour_field", "an image of 3000 boxes", 30, "ours_s"),
    Figure("start_up", "pseudolabel fuse --help", 0.3, "cpu_s"),
    Figure("start_up", "what fuse loads", 1.5, "cpu_s"),
    Figure("start_up", "fuse of one photograph", 300, "peak_mib"),
    Figure("start_up", "shard, infer-colors, fuse of 10 photographs", 0.25, "start_up_share"),
    Figure("throughput", "infer-semantic, 100 photographs", 0.9, "share"),
    Figure("throughput", "infer-teacher, mal", 0.9, "share"),
    Figure("throughput", "infer-teacher, boxseg", 0.9, "share"),
    Figure("throughput", "train-teacher, mal", 0.9, "share"),
    Figure("throughput", "train-teacher, boxseg", 0.9, "share"),
    Figure("throughput", "train-student", 0.9, "share"),
    Figure("throughput", "picture, 12 megapixels", 2, "cpu_s"),
    Figure("throughput", "picture, 12 megapixels", 300, "peak_mib"),
    Figure("throughput", "picture, 48 megapixels", 1000, "peak_mib"),
    Figure("growth", "boxes of an image, infer-colors", 1.1, "time_exponent"),
    Figure("growth", "boxes of an image, fuse", 1.1, "time_exponent"),
    Figure("growth", "candidates of each", 1.1, "time_exponent"),
    Figure("growth", "megapixels", 1.1, "time_exponent"),
    Figure("growth", "annotations", 1.1, "time_exponent"),
    Figure("growth", "annotations", 15, "us_each"),
    Figure("growth", "shards", 1.1, "time_exponent"),
    Figure("growth", "workers", 1.1, "time_exponent"),
)


def committed(script: str) -> dict[str, Any]:
    path = RESULTS / f"{script}.json"
    return json.loads(path.read_text()) if path.exists() else {"rows": []}


def measured(script: str, folder: Path) -> dict[str, Any]:
    """What the script finds now, on one thread."""
    out = folder / f"{script}.json"
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(HERE / f"{script}.py"), "--out", str(out)]
    subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, check=True)
    found: dict[str, Any] = json.loads(out.read_text())
    return found


def compared(figure: Figure, was: Sequence[dict[str, Any]], now: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """A row of the table.

    Raises:
        SystemExit: the script has no such case any more.
    """
    found, before = figure.of(now), figure.of(was)
    if found is None:
        raise SystemExit(f"{figure.script}.py has no case {figure.case!r} with {figure.key}: mend FIGURES of bench.py")
    fallen = figure.more_is_better and before is not None and found < before / 2
    return {
        "figure": figure.name,
        "goal": float(figure.goal),
        "was": before,
        "is": float(found),
        "": "FALLEN" if fallen else figure.verdict(found),
    }


def standing() -> list[dict[str, Any]]:
    """The goals beside what docs/results holds, without measuring anything."""
    rows = []
    for figure in FIGURES:
        found = figure.of(committed(figure.script)["rows"])
        rows.append({"figure": figure.name, "goal": float(figure.goal), "is": found, "": figure.verdict(found)})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    known = list(dict.fromkeys(figure.script for figure in FIGURES))
    parser.add_argument("scripts", nargs="*", default=known, help=f"of {', '.join(known)}; all")
    parser.add_argument("--keep", action="store_true", help="put the new figures into docs/results")
    arguments = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for script in arguments.scripts:
            was, now = committed(script)["rows"], measured(script, Path(folder))["rows"]
            made = [compared(figure, was, now) for figure in FIGURES if figure.script == script]
            print(format_rows(made), flush=True)
            rows += made
            if arguments.keep:
                shutil.copy(Path(folder) / f"{script}.json", RESULTS)
    print(format_rows(rows))
    sys.exit(any(row[""] == "FALLEN" for row in rows))


if __name__ == "__main__":
    main()
