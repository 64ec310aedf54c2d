"""How time and memory grow: with an image's boxes and megapixels, with candidates, annotations, shards and workers.

Every point is a process of its own, so that its peak memory is its own. CPU seconds are those of the process and of the
workers that it starts, without what it takes to load. The exponent is the slope of a straight line through the
logarithms of the points that are large enough to be measured: 1 is linear, 2 quadratic. Memory's is of what a point
takes beyond the smallest one.

    python tests/benchmarks/growth.py --out docs/results/growth.json
    python tests/benchmarks/growth.py boxes_fused --out docs/results/growth.json   # this axis anew, the rest stays
"""

import argparse
import json
import math
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from harness import report, script_parser

SEED = 0
_LEAST_S, _LEAST_MIB = 0.05, 8.0  # below them a point is noise


@dataclass(frozen=True)
class Axis:
    """What grows, through which values, and what is done: a preparation that gives the measured call."""

    what: str
    values: tuple[float, ...]
    prepare: Callable[[float, Path], Callable[[], object]]


def boxes_coloured(count: float, folder: Path) -> Callable[[], object]:
    from pseudolabel.segmenters.candidates import color_candidates

    rgb, boxes = _noise(1200, 1600), _boxes(int(count), 1200, 1600)
    color_candidates(boxes[:1], rgb)
    return lambda: color_candidates(boxes, rgb)


def boxes_fused(count: float, folder: Path) -> Callable[[], object]:
    from pseudolabel.fusion.labels import LabelSettings, label_objects

    rgb, boxes = _noise(1200, 1600), _boxes(int(count), 1200, 1600)
    candidates = [_candidate(box, 24) for box in boxes]
    label_objects(boxes[:1], candidates[:1], (1200, 1600), LabelSettings(), rgb=rgb)
    return lambda: label_objects(boxes, candidates, (1200, 1600), LabelSettings(), rgb=rgb)


def candidates_fused(count: float, folder: Path) -> Callable[[], object]:
    from pseudolabel.fusion.objects import FusionSettings, fuse_image

    boxes = _boxes(400, 1200, 1600)
    settings = FusionSettings(per_source=int(count))
    candidates = [_candidate(box, 24) for box in boxes for _ in range(int(count))]
    fuse_image(boxes[:1], candidates[:1], (1200, 1600), settings)
    return lambda: fuse_image(boxes, candidates, (1200, 1600), settings)


def megapixels(count: float, folder: Path) -> Callable[[], object]:
    from PIL import Image

    from pseudolabel.images import decode, read_file
    from pseudolabel.segmenters.candidates import color_candidates

    height, width = round(math.sqrt(count * 1e6 * 3 / 4)), round(math.sqrt(count * 1e6 * 4 / 3))
    small = Image.fromarray(_noise(60, 80))
    small.resize((width, height), Image.Resampling.BICUBIC).save(folder / "image.jpg", quality=90)
    boxes = _boxes(10, height, width, least=0.1 * height, most=0.4 * height)
    color_candidates(_boxes(1, 60, 80), np.asarray(small))
    return lambda: color_candidates(boxes, decode(read_file(folder, "image.jpg")))


def annotations(count: float, folder: Path) -> Callable[[], object]:
    from pseudolabel.datasets.coco import CocoDataset

    file, total = folder / "instances.json", int(count)
    images = ({"id": i + 1, "file_name": f"{i:08d}.jpg", "width": 640, "height": 480} for i in range(total // 7 + 1))
    rows = (
        {"id": i + 1, "image_id": i // 7 + 1, "category_id": 1 + i % 3, "iscrowd": 0, "area": 1200.0,
         "bbox": [10.0 + i % 300, 20.0, 30.0, 40.0], "segmentation": [[10.5, 20, 40, 20.25, 40, 60, 10.5, 60.75]]}
        for i in range(total)
    )  # fmt: skip
    categories = [{"id": i, "name": f"class {i}"} for i in (1, 2, 3)]
    with file.open("w") as out:  # one by one, so that the memory measured is the reader's
        for name, records in (("images", images), ("annotations", rows)):
            out.write(("{" if name == "images" else ",") + f'"{name}": [')
            out.writelines(("" if place == 0 else ",\n") + json.dumps(one) for place, one in enumerate(records))
            out.write("]")
        out.write(f', "categories": {json.dumps(categories)}}}')
    return lambda: sum(1 for _ in CocoDataset(None, file).rows())


def shards(count: float, folder: Path) -> Callable[[], object]:
    return _stage(folder, images=2 * int(count), shards=int(count), workers=1)


def workers(count: float, folder: Path) -> Callable[[], object]:
    return _stage(folder, images=20000, shards=40, workers=int(count))


def _stage(folder: Path, *, images: int, shards: int, workers: int) -> Callable[[], object]:
    from million import phase_plan, phase_stage

    from pseudolabel.pipelines.run.paths import RunPaths

    run = RunPaths(folder / "run")
    phase_plan(run, images, shards, workers)
    return lambda: phase_stage(run, images, shards, workers)


AXES = {
    "boxes_coloured": Axis("boxes of an image, infer-colors", (10, 100, 1000, 3000), boxes_coloured),
    "boxes_fused": Axis("boxes of an image, fuse", (10, 100, 1000, 3000), boxes_fused),
    "candidates_fused": Axis("candidates of each of 400 objects, fuse", (4, 16, 64, 256), candidates_fused),
    "megapixels": Axis("megapixels, decoding and 10 boxes by colour", (0.3, 1.2, 4.8, 12, 48), megapixels),
    "annotations": Axis("annotations of a COCO file", (1000, 10_000, 100_000), annotations),
    "shards": Axis("shards of two images, driver and one worker", (10, 100, 1000), shards),
    "workers": Axis("workers, 20,000 images in 40 shards", (1, 2), workers),
}


def _noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(SEED).integers(0, 255, (height, width, 3), dtype=np.uint8)


def _boxes(count: int, height: int, width: int, least: float = 20, most: float = 60) -> list[Any]:
    from pseudolabel.candidates import GivenBox

    random = np.random.default_rng(SEED)
    sides = random.uniform(least, most, (count, 2)).clip(4, min(height, width) - 1)
    corners = random.random((count, 2)) * (np.array([width, height]) - sides)
    rows = np.concatenate([corners, corners + sides], axis=1).tolist()
    return [GivenBox.from_xyxy(number, number % 3 + 1, row) for number, row in enumerate(rows)]


def _candidate(box: Any, cells: int) -> Any:
    """An ellipse in the box."""
    from pseudolabel.candidates import Candidate
    from pseudolabel.masks import Grid, SoftMask

    x, y, width, height = box.bbox_xywh
    y_of, x_of = np.linspace(-1, 1, cells)[:, None], np.linspace(-1, 1, cells)[None]
    probability = 255 / (1 + np.exp(-8 * (0.9 - x_of**2 - y_of**2)))
    mask = SoftMask(Grid(x, y, width / cells, height / cells, cells, cells), np.rint(probability).astype(np.uint8))
    return Candidate("teacher", box.annotation_id, box.category_id, box.box_xyxy, 0.9, 0.9, mask, knows_class=True)


def measure(axis: str, value: float) -> dict[str, float]:
    """CPU seconds and peak MiB of a point, in this process."""
    with tempfile.TemporaryDirectory() as folder:
        call = AXES[axis].prepare(value, Path(folder))
        start = _cpu_s()
        call()
        return {"seconds": _cpu_s() - start, "mib": _peak_mib()}


def _cpu_s() -> float:
    used = (resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN))
    return sum(one.ru_utime + one.ru_stime for one in used)


def _peak_mib() -> float:
    """Of the largest of the processes; this one's since it began, without what it was forked from."""
    own = int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
    return max(own, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss) / 1024


def point(axis: str, value: float) -> dict[str, float]:
    """A point in a process of its own."""
    command = [sys.executable, __file__, "--point", axis, str(value)]
    found: dict[str, float] = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout)
    print(f"{axis} {value:g}: {found['seconds']:.3g} s, {found['mib']:.0f} MiB", file=sys.stderr)
    return found


def exponent(values: Sequence[float], results: Sequence[float], *, least: float) -> float | None:
    """Slope of the logarithms, of the points whose result is no noise; None where fewer than two are left."""
    kept = [
        (math.log(value), math.log(result)) for value, result in zip(values, results, strict=True) if result >= least
    ]
    if len(kept) < 2:
        return None
    return float(np.polyfit(*zip(*kept, strict=True), deg=1)[0])


def row(axis: str) -> dict[str, Any]:
    """An axis in the table."""
    values = AXES[axis].values
    found = [point(axis, value) for value in values]
    seconds, mib = [one["seconds"] for one in found], [one["mib"] for one in found]
    extra = [one - mib[0] for one in mib]
    return {
        "case": AXES[axis].what,
        "from": values[0],
        "to": values[-1],
        "s_from": seconds[0],
        "s_to": seconds[-1],
        "us_each": 1e6 * seconds[-1] / values[-1],
        "time_exponent": exponent(values, seconds, least=_LEAST_S),
        "mib_from": mib[0],
        "mib_to": mib[-1],
        "memory_exponent": exponent(values, extra, least=_LEAST_MIB),
    }


def _others(out: Path | None, axis: str) -> list[dict[str, Any]]:
    """What the file that is written has of other axes."""
    there = json.loads(out.read_text())["rows"] if out and out.exists() else []
    return [one for one in there if one["case"] != AXES[axis].what]


def main() -> None:
    parser = script_parser(__doc__)
    parser.add_argument("axes", nargs="*", default=list(AXES), help=f"of {', '.join(AXES)}; all")
    parser.add_argument("--point", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.point:
        print(json.dumps(measure(arguments.point[0], float(arguments.point[1]))))
        return
    on = "noise with drawn boxes and ellipses; every point a process of its own, CPU seconds of it and its workers"
    for axis in arguments.axes:  # kept one by one: an axis takes minutes
        report("growth", [*_others(arguments.out, axis), row(axis)], on=on, seeds=[SEED])


if __name__ == "__main__":
    main()
