"""Laws of growth, on the short version of `tests/benchmarks/million.py` and on a plan of ten thousand shards."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pseudolabel.pipelines.planning.plan import PLAN_STAGE, Plan, plan_text, read_plan
from pseudolabel.pipelines.run.paths import RunPaths

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "million.py"


@pytest.mark.slow
def test_memory_does_not_grow_with_images_and_shards() -> None:
    command = [sys.executable, str(SCRIPT), "--cases", "500:5,5000:50", "--json"]
    rows = json.loads(subprocess.run(command, capture_output=True, check=True, text=True).stdout)["rows"]
    peaks: dict[str, list[int]] = {}
    for row in rows:
        peaks.setdefault(row["case"], []).append(max(row["peak_mb"], row["worker_peak_mb"] or 0))
    assert set(peaks) == {"plan", "read_plan", "stage", "again", "export"}
    for case, (small, large) in peaks.items():
        assert large - small < 25, f"{case}: {small} MB for 500 images, {large} MB for 5,000"


def test_a_plan_of_ten_thousand_shards_is_read_in_less_than_a_second(tmp_path: Path) -> None:
    digests = [f"{shard:064x}" for shard in range(10_000)]
    plan = Plan(10_000, "images", "transpose", "coco", 10**6, 10**7, {}, [], {}, [], "d" * 64, digests)
    run = RunPaths(tmp_path)
    run.plan.write_text(plan_text(plan))
    began = time.process_time()
    assert read_plan(run) == plan
    assert time.process_time() - began < 1.0
    assert run.part(PLAN_STAGE, 9_999, 10_000).name == "part-09999-of-10000.parquet"
