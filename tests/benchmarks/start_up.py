"""What a command costs before it works: CPU seconds and memory of processes that start, ask for help or load `fuse`.

Every case is a process of its own, several times; the median of the CPU seconds counts, and the largest memory. Files
are in the machine's cache, numba's loops in theirs, and Python's bytecode is kept, as it is where a package is
installed. The share of start-up in a run follows from runs over 10 and 40 drawn photographs: what 10 more of them cost
is work, and the rest of the first run is start-up.
"""

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from harness import report, script_parser

CASES = {
    "python": ["-c", "pass"],
    "import pseudolabel": ["-c", "import pseudolabel"],
    "pseudolabel --help": ["-m", "pseudolabel.cli.main", "--help"],
    "pseudolabel fuse --help": ["-m", "pseudolabel.cli.main", "fuse", "--help"],
    "what fuse loads": ["-c", "import pseudolabel.fusion.labels, pseudolabel.fusion.calibration"],
    "what infer-colors loads": ["-c", "import pseudolabel.segmenters.candidates"],
}
REPEATS = 3
SIZE_HW = (480, 640)
FEW, MANY = 10, 40  # photographs


def cost(arguments: list[str], environment: dict[str, str] | None = None) -> tuple[float, float]:
    """CPU seconds and peak MiB of a fresh Python with these arguments and of the processes that it starts."""
    process = subprocess.Popen(
        [sys.executable, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment
    )
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"python {' '.join(arguments)} ended with {process.returncode}")
    return used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


def row(case: str, arguments: list[str], environment: dict[str, str]) -> dict[str, Any]:
    cost(arguments, environment)
    found = [cost(arguments, environment) for _ in range(REPEATS)]
    return {"case": case, "cpu_s": statistics.median(s for s, _ in found), "peak_mib": max(mib for _, mib in found)}


def run_rows(folder: Path, environment: dict[str, str]) -> list[dict[str, Any]]:
    """One photograph through `fuse`, and runs of a few and of many photographs through the whole chain."""
    from pseudolabel.pipelines.demo.scenes import write_dataset

    seconds = {}
    for count in (1, FEW, MANY):
        write_dataset(folder / str(count), count, seed=0, size_hw=SIZE_HW)
        seconds[count] = statistics.median(_chain_cost(folder, count, environment) for _ in range(2))
    (folder / "again.yaml").write_text(_run_file(folder, 1, "again"))
    cost(["-m", "pseudolabel.cli.main", "run", str(folder / "again.yaml")], environment)
    fuse = [_fuse_cost(folder / "again", environment) for _ in range(REPEATS)]
    work = (seconds[MANY] - seconds[FEW]) / (MANY - FEW)
    share = 1 - FEW * work / seconds[FEW]
    return [
        {
            "case": "fuse of one photograph",
            "cpu_s": statistics.median(s for s, _ in fuse),
            "peak_mib": max(mib for _, mib in fuse),
        },
        {"case": "shard, infer-colors, fuse of one photograph", "cpu_s": seconds[1]},
        {"case": f"shard, infer-colors, fuse of {FEW} photographs", "cpu_s": seconds[FEW], "start_up_share": share},
        {"case": f"shard, infer-colors, fuse of {MANY} photographs", "cpu_s": seconds[MANY]},
    ]


def _chain_cost(folder: Path, count: int, environment: dict[str, str]) -> float:
    file = folder / f"{count}.yaml"
    file.write_text(_run_file(folder, count, "run"))
    shutil.rmtree(folder / "run", ignore_errors=True)
    return cost(["-m", "pseudolabel.cli.main", "run", str(file)], environment)[0]


def _fuse_cost(run: Path, environment: dict[str, str]) -> tuple[float, float]:
    shutil.rmtree(run / "pseudo")
    return cost(["-m", "pseudolabel.cli.main", "fuse", str(run), "--workers", "1"], environment)


def _run_file(folder: Path, count: int, run: str) -> str:
    data = folder / str(count)
    return (
        f"run: {folder / run}\nshard: {{images: {data / 'images'}, annotations: {data / 'boxes.json'}, workers: 1}}\n"
        "infer-colors: {workers: 1}\nfuse: {workers: 1}\n"
    )


def main() -> None:
    script_parser(__doc__).parse_args()
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {"PYTHONPYCACHEPREFIX": f"{folder}/bytecode"}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        rows = [row(case, arguments, environment) for case, arguments in CASES.items()]
        rows += run_rows(Path(folder), environment)
    report("start_up", rows, on="fresh processes, 1 thread; drawn photographs of 640x480 with some 35 objects")


if __name__ == "__main__":
    main()
