"""What every figure's script shares: interleaved timing, and a result file that says where it comes from.

Run a script with `--json` to print one object, with `--out docs/results/NAME.json` to keep it.
"""

import argparse
import datetime as dt
import importlib.metadata
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

LIBRARIES = ("torch", "torchvision", "onnxruntime-gpu", "numpy", "numba", "pyarrow", "pycocotools", "faster-coco-eval")


def interleaved(functions: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median seconds of CPU time per call of each function, called in turns so that noise hits all alike.

    Each function is called once before the clock starts.
    """
    for function in functions.values():
        function()
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(repeats):
        for name, function in functions.items():
            start = time.process_time()
            function()
            seconds[name].append(time.process_time() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def shared_folder() -> Path:
    """The folder of real data and weights: `PSEUDOLABEL_SHARED`, else `../shared` beside the checkout.

    Raises:
        SystemExit: it is not there.
    """
    folder = Path(os.environ.get("PSEUDOLABEL_SHARED") or Path(__file__).parents[2].parent / "shared")
    if not folder.is_dir():
        raise SystemExit(
            f"no real data at {folder}: set PSEUDOLABEL_SHARED to the folder that holds data/ and weights/"
        )
    return folder


def report(name: str, rows: list[dict[str, Any]], *, on: str, seeds: list[int] | None = None) -> None:
    """Print the rows as a table, or as JSON with `--json`; keep them with `--out FILE`, under the file's name."""
    arguments, _ = script_parser(None).parse_known_args()
    found = result(arguments.out.stem if arguments.out else name, rows, on=on, seeds=seeds)
    if arguments.out:
        keep(arguments.out, found)
    if arguments.json:
        print(json.dumps(found))
    else:
        print(format_rows(rows))


def result(name: str, rows: list[dict[str, Any]], *, on: str, seeds: list[int] | None = None) -> dict[str, Any]:
    """The rows with where they come from."""
    return {
        "name": name,
        "on": on,
        "rows": rows,
        "seeds": seeds or [],
        "command": _command(),
        "commit": commit(),
        "machine": _machine(),
        "versions": _versions(),
        "date": dt.date.today().isoformat(),
    }


def keep(path: Path, found: dict[str, Any]) -> None:
    """Write a result file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found, indent=1) + "\n")


def format_rows(rows: list[dict[str, Any]]) -> str:
    """Rows as a Markdown table; numbers with four significant digits."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    lines += ["| " + " | ".join(_cell(row.get(column)) for column in columns) + " |" for row in rows]
    return "\n".join(lines)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def script_parser(doc: str | None) -> argparse.ArgumentParser:
    """The parser of a script, with the options that `report` reads; an option that it does not know ends the script."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--out", type=Path, help="keep the figures in this file, too")
    return parser


def _command() -> str:
    """What was typed, from the repository's root; a path elsewhere by its last part alone, as it is this machine's."""
    script = Path(sys.argv[0]).name
    return " ".join(["python", f"tests/benchmarks/{script}", *map(_shown, sys.argv[1:])])


def _shown(argument: str) -> str:
    """An argument with the last part of each path in it: `coco=run:truth.json` of `coco=/data/run:/data/truth.json`."""
    return re.sub(r"(?:^|(?<=[=:]))/[^=:]+", lambda found: _last_part(found.group()), argument)


def _last_part(text: str) -> str:
    path, root = Path(text), Path(__file__).resolve().parents[2]
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name


def commit() -> str:
    """The checkout's commit, with `-dirty` where a file has changed since that is no result, which decides nothing."""
    git = ["git", "-C", str(Path(__file__).parents[2])]
    name = subprocess.run([*git, "describe", "--always"], capture_output=True, text=True, check=False).stdout.strip()
    changed = [*git, "status", "--porcelain", "--untracked-files=no", "--", ".", ":(exclude)docs/results*"]
    dirty = subprocess.run(changed, capture_output=True, text=True, check=False).stdout.strip()
    return f"{name}-dirty" if dirty else name


def _machine() -> dict[str, Any]:
    return {"cpu": _cpu_name(), "cores": os.cpu_count(), "system": platform.system(), "gpu": _gpu_name()}


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    names = [line.split(":")[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _gpu_name() -> str | None:
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else None


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for library in LIBRARIES:
        try:
            versions[library] = importlib.metadata.version(library)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions
