"""Memory and time of a run in the number of images and shards: plan, a trivial stage, a second look, the COCO export.

`python tests/benchmarks/million.py --cases 100000:100,1000000:1000,1000000:10000 [--workers 2] [--folder DIR]`

No picture is opened and no network runs: the rows are made up, and the stage gives each object its box as mask. What is
measured is what the tool itself needs. Every phase is a process of its own, so that its peak memory is its own.
"""

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa
from harness import report, script_parser

from pseudolabel import records
from pseudolabel.pipelines.planning.plan import PlanRequest, read_plan, write_plan
from pseudolabel.pipelines.run.commit import read_part
from pseudolabel.pipelines.run.paths import RunPaths
from pseudolabel.pipelines.runner import RunOptions, run_stage
from pseudolabel.pipelines.stage import Shard, Stage, StageConfig

STAGE = "million:BoxStage"
OBJECTS = 2  # per image
SIDE = 640
PHASES = ("plan", "read_plan", "stage", "again", "export")


class BoxConfig(StageConfig):
    """No options of its own."""


class BoxStage(Stage[BoxConfig]):
    """Every object's box as its mask; the export is a phase of its own here."""

    name = STAGE
    version = 1
    config_class = BoxConfig
    unit = "object"
    schema = records.PSEUDO
    writes = "pseudo"

    def reads(self) -> tuple[str, ...]:
        return ("plan",)

    def run(self, shard: Shard, inputs: Mapping[str, pa.Table]) -> pa.Table:
        rows = [box_row(image["image_key"], item) for image in inputs["plan"].to_pylist() for item in image["objects"]]
        return records.table_from_rows(rows, records.PSEUDO)


def box_row(key: str, item: Mapping[str, Any]) -> dict[str, Any]:
    """The pseudo label of one object."""
    x, y, width, height = (int(value) for value in item["bbox_xywh"])
    return {
        "image_key": key,
        "annotation_id": item["annotation_id"],
        "category_id": item["category_id"],
        "segmentation": box_mask(x, y, width, height),
        "bbox_xywh": item["bbox_xywh"],
        "source_bbox_xywh": item["bbox_xywh"],
        "area": width * height,
        "iscrowd": False,
        "score": 0.5,
        "decision": "keep",
        **records.ok(STAGE),
    }


@lru_cache(maxsize=4096)
def box_mask(x: int, y: int, width: int, height: int) -> Any:
    """The encoded mask of a box; there are 500 different ones per object of an image."""
    import numpy as np

    from pseudolabel import rle
    from pseudolabel.masks import PixelMask

    return rle.encode_crop(PixelMask(x, y, np.ones((height, width), dtype=bool)), (SIDE, SIDE))


def plan_rows(images: int) -> Iterator[dict[str, Any]]:
    """Made-up images of five boxes each."""
    for index in range(images):
        name = f"folder{index % 1000:03d}/{index:09d}.jpg"
        row = {"image_key": name, "image_id": index, "file_name": name, "width": SIDE, "height": SIDE}
        yield row | {"objects": [_object(index, number) for number in range(OBJECTS)]} | records.ok("shard")


def _object(index: int, number: int) -> dict[str, Any]:
    place = (index * 31 + number * 97) % 500
    box = [float(place), float(place // 2), 40.0 + number, 60.0 - number]
    return {"annotation_id": index * OBJECTS + number, "category_id": 1 + number, "bbox_xywh": box, "iscrowd": False}


def phase_plan(run: RunPaths, images: int, shards: int, workers: int) -> None:
    """Rows to the frozen plan."""
    categories = [{"id": 1 + number, "name": f"class {number}"} for number in range(OBJECTS)]
    request = PlanRequest(run.root.parent, "made up", shards, "ignore", categories, {}, [])
    write_plan(run, request, plan_rows(images))


def phase_read_plan(run: RunPaths, images: int, shards: int, workers: int) -> None:
    """What every worker begins with."""
    assert read_plan(run).n_images == images


def phase_stage(run: RunPaths, images: int, shards: int, workers: int) -> None:
    """All shards, by worker processes."""
    summary = run_stage(run, STAGE, BoxConfig(workers=workers, device="cpu"), RunOptions("local"))
    assert summary.n_ok == images * OBJECTS


def phase_again(run: RunPaths, images: int, shards: int, workers: int) -> None:
    """The same command when all is done."""
    assert run_stage(run, STAGE, BoxConfig(workers=workers, device="cpu"), RunOptions("local")).attempted == 0


def phase_export(run: RunPaths, images: int, shards: int, workers: int) -> None:
    """All parts to one COCO file."""
    from pseudolabel.formats.coco import write_coco

    plan = read_plan(run)
    tables = ((read_part(run.part("plan", i, shards)), read_part(run.part("pseudo", i, shards))) for i in range(shards))
    written = write_coco(tables, {"categories": plan.categories}, run.root / "instances.json")
    assert (written.images, written.annotations) == (images, images * OBJECTS)


def main() -> None:
    parser = script_parser(__doc__)
    parser.add_argument("--cases", default="100000:100,1000000:1000,1000000:10000", help="IMAGES:SHARDS,...")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--folder", type=Path, help="where the run folders lie for a while; by default the system's")
    parser.add_argument("--phase", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.phase:
        phase, folder, images, shards = arguments.phase
        measure(phase, RunPaths(Path(folder)), int(images), int(shards), arguments.workers)
        return
    cases = [tuple(map(int, case.split(":"))) for case in arguments.cases.split(",")]
    rows = [row for images, shards in cases for row in run_case(images, shards, arguments.workers, arguments.folder)]
    report("million", rows, on=f"made-up manifest, {OBJECTS} objects per image, masks are the boxes")


def run_case(images: int, shards: int, workers: int, folder: Path | None) -> list[dict[str, Any]]:
    """Figures of all phases for one size."""
    root = Path(tempfile.mkdtemp(dir=folder))
    try:
        return [_measured_apart(phase, root / "run", images, shards, workers) for phase in PHASES]
    finally:
        shutil.rmtree(root)


def _measured_apart(phase: str, run: Path, images: int, shards: int, workers: int) -> dict[str, Any]:
    command = [
        sys.executable,
        __file__,
        "--workers",
        str(workers),
        "--phase",
        phase,
        str(run),
        str(images),
        str(shards),
    ]
    figures = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout)
    return {"case": phase, "images": images, "shards": shards, **figures}


def measure(phase: str, run: RunPaths, images: int, shards: int, workers: int) -> None:
    """Run a phase in this process and print its time and peak memory."""
    function: Callable[[RunPaths, int, int, int], None] = globals()[f"phase_{phase}"]
    before, began = _peak_mb(resource.RUSAGE_SELF), time.monotonic()
    function(run, images, shards, workers)
    seconds = time.monotonic() - began
    figures = {
        "seconds": round(seconds, 3),
        "seconds_per_1000_images": round(1000 * seconds / images, 5),
        "start_mb": round(before),
        "peak_mb": round(_peak_mb(resource.RUSAGE_SELF)),
        "worker_peak_mb": round(_peak_mb(resource.RUSAGE_CHILDREN)) if phase == "stage" else None,
    }
    print(json.dumps(figures))


def _peak_mb(whose: int) -> float:
    return resource.getrusage(whose).ru_maxrss / 1024


if __name__ == "__main__":
    main()
