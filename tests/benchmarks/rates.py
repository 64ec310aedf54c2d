"""What every step costs on a CPU: seconds of an image with its boxes for a stage, of a million pixels for a training.

`python tests/benchmarks/rates.py --out docs/results/rates.json` measures on coco-dev with the segmenter beside it, in
some minutes; `--table docs/results/rates.json` prints what that makes for 150, 10,000 and a million images. Every
command is typed twice, over a few and over more images or steps, with one worker: the difference counts, and start-up
does not.
`pipelines/forecast.py` has the figures of the trainings, rounded.
"""

import json
import resource
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness import format_rows, report, script_parser, shared_folder

from pseudolabel.config import parse_config
from pseudolabel.pipelines.graph import configured
from pseudolabel.pipelines.planning.plan import read_plan
from pseudolabel.pipelines.run.paths import RunPaths
from pseudolabel.training.config import TrainConfig

FEW, MORE = (6, 30), (3, 9)  # images of the stages, steps of the trainings
STAGES = ("shard", "infer-semantic", "infer-colors", "infer-teacher", "fuse")
TRAININGS = {
    "train-teacher small": {"preset": "small", "backbone_weights": "none"},
    "train-teacher": {"backbone_weights": "none"},
    "train-siseg": {"backbone_weights": "none"},
    "train-student small": {"preset": "small", "backbone_weights": "none", "batch_size": 4},
    "train-student": {"backbone_weights": "none", "batch_size": 4},
}
WAYS = {
    "colours": ("shard", "infer-colors", "fuse"),
    "segmenter": ("shard", "infer-semantic", "fuse"),
    "teacher, `--preset small`": ("shard", "train-teacher small", "infer-teacher", "fuse"),
    "teacher": ("shard", "train-teacher", "infer-teacher", "fuse"),
    "student, `--preset small`, of finished masks": ("train-student small",),
}
SIZES = (150, 10_000, 1_000_000)


def main() -> None:
    """Measure, or print the table of a file."""
    parser = script_parser(__doc__)
    parser.add_argument("--table", type=Path, help="print the table of this result file, and measure nothing")
    arguments = parser.parse_args()
    if arguments.table:
        print(format_rows(table(json.loads(arguments.table.read_text()))))
        return
    with tempfile.TemporaryDirectory() as folder:
        rows, boxes = measured(Path(folder), shared_folder())
    report("rates", rows, on=f"coco-dev, {boxes:.1f} boxes an image, one worker, encoders from chance")


def measured(folder: Path, shared: Path) -> tuple[list[dict[str, Any]], float]:
    """A row for each step, and how many boxes an image has."""
    runs = [folder / str(images) for images in FEW]
    seconds = {name: [stage_seconds(name, run, shared, images) for run, images in zip(runs, FEW, strict=True)]
               for name in STAGES if name != "infer-teacher"}  # fmt: skip
    more = RunPaths(runs[-1])
    plan = read_plan(more)
    rows = [training_row(name, options, more) for name, options in TRAININGS.items()]
    for run in runs:
        typed("train-teacher", run, "--steps", "1", "--backbone-weights", "none", "--overwrite")
    seconds["infer-teacher"] = [stage_seconds("infer-teacher", run, shared, 0) for run in runs]
    stages = [{"step": name, "s_per_image": (b - a) / (FEW[1] - FEW[0])} for name, (a, b) in seconds.items()]
    return stages + rows, plan.n_objects / plan.n_images


def stage_seconds(name: str, run: Path, shared: Path, images: int) -> float:
    """Of a stage over a run's sample of so many images."""
    data = shared / "data" / "coco-dev"
    options = {
        "shard": ["--images", data / "images", "--annotations", data / "boxes.json", "--sample", images],
        "infer-semantic": ["--model", shared / "weights" / "deeplabv3_mobilenetv2_voc21.onnx"],
    }
    return typed(name, run, "--workers", "1", *map(str, options.get(name, [])))


def training_row(name: str, options: Mapping[str, Any], run: RunPaths) -> dict[str, Any]:
    """Seconds of a million pixels."""
    command, plan, spent = name.split()[0], read_plan(run), []
    arguments = [part for key, value in options.items() for part in (f"--{key.replace('_', '-')}", str(value))]
    for steps in MORE:
        spent.append(typed(command, run.root, *arguments, "--steps", str(steps), "--overwrite"))
    config = _config(command, {**options, "steps": MORE[1] - MORE[0]})
    pixels = config.megapixels(plan.n_images, plan.n_objects)
    return {"step": name, "s_per_megapixel": (spent[1] - spent[0]) / pixels, "backbone": config.backbone}


def typed(name: str, run: Path, *options: str) -> float:
    """CPU seconds of a command and of all its workers."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-m", "pseudolabel", name, str(run), *options], check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def table(found: Mapping[str, Any]) -> list[dict[str, str]]:
    """The ways by the number of images, in minutes or hours of one core."""
    rates, boxes = {row["step"]: row for row in found["rows"]}, float(found["on"].split()[1])
    return [
        {"way": way, **{f"{size:,} images": _duration(_seconds(steps, rates, size, boxes)) for size in SIZES}}
        for way, steps in WAYS.items()
    ]


def _seconds(steps: Sequence[str], rates: Mapping[str, Mapping[str, Any]], images: int, boxes: float) -> float:
    return sum(_step_seconds(name, rates[name], images, boxes) for name in steps)


def _step_seconds(name: str, rate: Mapping[str, Any], images: int, boxes: float) -> float:
    if name in STAGES:
        return float(rate["s_per_image"]) * images
    options = {key: value for key, value in TRAININGS[name].items() if key != "batch_size"}
    config = _config(name.split()[0], options)
    return float(rate["s_per_megapixel"]) * config.megapixels(images, round(images * boxes))


def _config(command: str, values: Mapping[str, Any]) -> TrainConfig:
    config = parse_config(configured(command).config_class(values), values, where=command)
    assert isinstance(config, TrainConfig)
    return config


def _duration(seconds: float) -> str:
    minutes = seconds / 60
    return f"{float(f'{minutes:.2g}'):g} min" if minutes < 120 else f"{float(f'{minutes / 60:.2g}'):,.0f} h"


if __name__ == "__main__":
    main()
