"""What a command costs before it works: CPU seconds and memory of a process that starts, asks for help or loads `fuse`.

Every case is a process of its own, several times; the median of the CPU seconds counts, and the largest memory. Files
are in the machine's cache, and numba's loops in theirs.
"""

import os
import statistics
import subprocess
import sys
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
REPEATS = 5


def cost(arguments: list[str]) -> tuple[float, float]:
    """CPU seconds and peak MiB of a fresh Python with these arguments."""
    process = subprocess.Popen([sys.executable, *arguments], stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"python {' '.join(arguments)} ended with {process.returncode}")
    return used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


def row(case: str, arguments: list[str]) -> dict[str, Any]:
    cost(arguments)
    found = [cost(arguments) for _ in range(REPEATS)]
    return {"case": case, "cpu_s": statistics.median(s for s, _ in found), "peak_mib": max(mib for _, mib in found)}


if __name__ == "__main__":
    script_parser(__doc__).parse_args()
    report("start_up", [row(case, arguments) for case, arguments in CASES.items()], on="fresh processes, 1 thread")
