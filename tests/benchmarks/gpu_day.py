"""The day a GPU is there: its tests, what fills it and what starves it, and what the modules bring in training.

    python tests/benchmarks/gpu_day.py --minutes 9 --weights mobilenetv2_imagenet_fp16.safetensors
    python tests/benchmarks/gpu_day.py --parts modules --minutes 9 --steps 2000 --jobs 6     # again, until it says done

One call takes about as long as `--minutes` says and no longer, needs no network and no data: scenes are drawn. What is
there is not made again: a row stays in its result file (`gpu_day_tests.json`, `_stages.json`, `_modules.json` in the
folder of `--out`), a training that was cut off goes on from its checkpoint in `--scratch`. Several trainings share
the GPU, since each of them leaves most of it idle. `--small --device cpu` rehearses all of it, and a CPU can make the
modules' table with fewer steps:

    python tests/benchmarks/gpu_day.py --parts modules --device cpu --jobs 1 --steps 300 --batch-size 4 --minutes 90
"""

import argparse
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import replace
from pathlib import Path
from typing import Any

from gpu_modules import FROM_THE_START, WARM, Course, box_row, gains, module_row
from gpu_stages import STAGES, Size, stage_rows
from harness import commit, format_rows, keep, result, script_parser

PARTS = ("tests", "stages", "modules")
SETTINGS = ("projection", "boxinst", "boxteacher", "boxseg-no-qam", "boxseg-bqr", "boxseg-bqr-qmf",
            "boxseg-bqr-qmf-mqs", "boxseg", "boxseg-quality-random", "boxseg-random-overlapping",
            "boxseg-random-random", "full")  # fmt: skip
SMALL_SHAPE = {"backbone": "tiny", "channels": 32, "convs": 1, "mask_branch_channels": 32, "learning_rate": 2e-3,
               "ema": 0.9}  # fmt: skip
TEST_LIMIT_S = 300.0
Job = tuple[str, int]  # setting and seed


class Table:
    """A result file that grows row by row; one that was begun another way is refused."""

    def __init__(self, path: Path, on: str, seeds: list[int], key: Callable[[dict[str, Any]], Any]) -> None:
        self.path, self.on, self.seeds, self.key = path, on, seeds, key
        self.rows: list[dict[str, Any]] = []
        if path.exists():
            before = json.loads(path.read_text())
            if before["on"] != on:
                raise SystemExit(f"{path} is of another setting ({before['on']}); this one is of: {on}")
            self.rows = before["rows"]

    def made(self) -> set[Any]:
        """Keys of the rows that are there."""
        return {self.key(row) for row in self.rows}

    def add(self, row: dict[str, Any], **more: Any) -> None:
        """Keep the row, with the commit that made it, in the place of one of its key."""
        self.rows = [one for one in self.rows if self.key(one) != self.key(row)] + [row | {"commit": commit()}]
        keep(self.path, result(self.path.stem, self.rows, on=self.on, seeds=self.seeds) | more)
        print(json.dumps(row), flush=True)


def run_tests(out: Path, device: str) -> bool:
    """Whether the GPU's tests pass, which is written down; without a GPU they are rehearsed on the CPU."""
    table = Table(out / "gpu_day_tests.json", f"tests/gpu on {device}", [], lambda row: row["case"])
    root = Path(__file__).resolve().parents[2]
    wanted = os.environ | {"PYTHONPATH": str(root)} | ({} if device == "cuda" else {"PSEUDOLABEL_GPU_TESTS": device})
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "gpu", str(root / "tests" / "gpu")]
    done = subprocess.run(command, env=wanted, capture_output=True, text=True, timeout=TEST_LIMIT_S, check=False)
    print(done.stdout[-4000:], done.stderr[-2000:], flush=True)
    last = (done.stdout.strip().splitlines() or ["nothing ran"])[-1]
    table.add({"case": "tests/gpu", "passed": done.returncode == 0, "said": last})
    return done.returncode == 0


def run_stages(out: Path, size: Size, until: float) -> bool:
    """Whether all rows of the stages are there."""
    on = f"drawn scenes of {size.image_hw[1]} x {size.image_hw[0]} px, {size.backbone}, on {size.device}"
    table = Table(out / "gpu_day_stages.json", on, [0], lambda row: row["stage"])
    for row in stage_rows(size, but=table.made(), until=until):
        table.add(row)
    print(format_rows(table.rows), flush=True)
    return set(STAGES) <= table.made()


def run_modules(out: Path, course: Course, seeds: list[int], wanted: Sequence[str], jobs: int, until: float) -> bool:
    """Whether all wanted rows of the modules are there; a CPU's course is another one, in a file of its own."""
    device = "gpu" if course.device == "cuda" else course.device
    table = Table(out / f"{device}_day_modules.json", course.on, seeds, lambda row: (row["setting"], row["seed"]))
    if ("box", None) not in table.made():
        table.add(box_row(course))
    missing = [(setting, seed) for seed in seeds for setting in wanted if (setting, seed) not in table.made()]
    pool = ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"))  # which tells of a worker that has died
    try:
        for row in finished(pool, course, missing, jobs, until):
            if row["setting"] != WARM:
                table.add(row, gains=gains([*table.rows, row]))
    finally:
        end(pool)
    print(format_rows(table.rows), format_rows(gains(table.rows)), sep="\n\n", flush=True)
    return {("box", None), *((setting, seed) for seed in seeds for setting in wanted)} <= table.made()


def finished(
    pool: ProcessPoolExecutor, course: Course, missing: list[Job], jobs: int, until: float
) -> Iterator[dict[str, Any]]:
    """Rows as trainings end, until the time is over; a seed's settings wait for its warm start."""
    needs = {seed for setting, seed in missing if setting not in FROM_THE_START}
    warm = {seed for seed in needs if (Path(course.scratch) / f"warm-{seed}.pt").exists()}
    waiting: list[Job] = [(WARM, seed) for seed in sorted(needs - warm)] + missing
    running: dict[Future[dict[str, Any]], Job] = {}
    while (waiting or running) and time.monotonic() < until:
        ready = [job for job in waiting if job[0] in (*FROM_THE_START, WARM) or job[1] in warm]
        for job in ready[: jobs - len(running)]:
            waiting.remove(job)
            running[pool.submit(module_row, course, *job)] = job
        over, _ = wait(running, max(0.0, until - time.monotonic()), FIRST_COMPLETED)
        for answer in over:
            setting, seed = running.pop(answer)
            warm |= {seed} if setting == WARM else set()
            yield answer.result()


def end(pool: ProcessPoolExecutor) -> None:
    """Stop what still runs; its last checkpoint is what a later call goes on from."""
    pool.shutdown(wait=False, cancel_futures=True)
    for worker in multiprocessing.active_children():
        worker.terminate()


def parsed() -> argparse.Namespace:
    parser = script_parser(__doc__)
    parser.add_argument("--parts", default=",".join(PARTS), help=f"of {', '.join(PARTS)}")
    parser.add_argument("--minutes", type=float, default=9.0, help="how long the call may take")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--jobs", type=int, default=6, help="trainings at once")
    parser.add_argument("--steps", type=int, default=1200, help="of either phase of a training")
    parser.add_argument("--batch-size", type=int, default=8, help="windows of a step")
    parser.add_argument("--settings", default=",".join(SETTINGS), help="the modules' rows, of %(default)s")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--weights", default="none", help="file of the backbone's weights (mobilenet_v2)")
    parser.add_argument("--scratch", type=Path, default=Path("gpu-day-scratch"), help="what a later call goes on from")
    parser.add_argument("--precision", default="fp32", help="of trainings: fp32 or bf16")
    parser.add_argument("--small", action="store_true", help="a rehearsal: everything tiny")
    parser.set_defaults(out=Path("docs/results"))
    return parser.parse_args()


def course_of(arguments: argparse.Namespace) -> Course:
    course = Course(arguments.device, str(arguments.scratch.resolve()), weights=arguments.weights,
                    precision=arguments.precision)  # fmt: skip
    changes: dict[str, Any] = {"warm_steps": arguments.steps, "steps": arguments.steps,
                               "batch_size": arguments.batch_size}  # fmt: skip
    if arguments.small:
        changes |= {"train": 4, "val": 2, "batch_size": 2, "short_px": 128, "window_px": 64, "weights": "none",
                    "shape": tuple(SMALL_SHAPE.items())}  # fmt: skip
    return replace(course, **changes)


def main() -> None:
    arguments = parsed()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # not without its trainings
    until, out = time.monotonic() + 60 * arguments.minutes, arguments.out
    arguments.scratch.mkdir(parents=True, exist_ok=True)
    size = Size.small(arguments.device) if arguments.small else Size(arguments.device)
    seeds, wanted = [int(seed) for seed in arguments.seeds.split(",")], arguments.settings.split(",")
    parts = {
        "tests": lambda: run_tests(out, arguments.device),
        "stages": lambda: run_stages(out, size, until),
        "modules": lambda: run_modules(out, course_of(arguments), seeds, wanted, arguments.jobs, until),
    }
    done = {part: parts[part]() for part in arguments.parts.split(",")}
    print("done" if all(done.values()) else f"not done: {', '.join(part for part in done if not done[part])}")


if __name__ == "__main__":
    main()
