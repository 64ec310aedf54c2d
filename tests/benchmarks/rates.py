"""Time of a run by its number of images, out of the measured costs in `pipelines/forecast.py`; and costs of trainings.

    python tests/benchmarks/rates.py              # the table of quickstart.md
    python tests/benchmarks/rates.py --stages     # what a stage costs, measured: ten minutes of one core
    python tests/benchmarks/rates.py --trainings  # what a training costs, measured: half an hour of one core

The table has minutes or hours of one core for 150, 10,000 and a million images with as many boxes each as the COCO
photographs have. Where the costs come from stands beside them.

With `--stages` a run of few images and one of more are made of each set, and what every stage took is fitted by its
start, images and boxes: the rows named `fit`, which `COSTS` holds. A crowded box, which the teacher looks at in
`FIRST_VIEWS` views before it looks in all of them, counts as so much more than one.

With `--trainings` the commands themselves are typed, each in a process of its own, for a few steps over some images,
and what they took is fitted by the parts of `TrainConfig.work`, no part below zero: these rows, named `fit`, are what
`TRAININGS` holds. Costs are per pixel, so that slow networks are measured on pictures smaller than their default.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from harness import report, script_parser, shared_folder
from scipy.optimize import nnls

from pseudolabel.pipelines.forecast import Size, size_of_plan
from pseudolabel.pipelines.planning.plan import read_plan
from pseudolabel.pipelines.run.paths import RunPaths
from pseudolabel.pipelines.steps import parse_step
from pseudolabel.training.config import TrainConfig, Work

BOXES, CROWDED = 1302 / 142, 1014 / 1302  # boxes of an image, and the share of crowded ones, as in coco-dev
SIZES = (150, 10_000, 1_000_000)
WAYS: dict[str, Mapping[str, Mapping[str, Any]]] = {
    "colours": {"shard": {"images": "images"}, "infer-colors": {}, "fuse": {}},
    "segmenter": {"shard": {"images": "images"}, "infer-semantic": {"model": "FILE.onnx"}, "fuse": {}},
    "teacher, `--preset small`": {
        "shard": {"images": "images"}, "train-teacher": {"preset": "small"}, "infer-teacher": {}, "fuse": {},
    },
    "then a student, `--preset small`": {"train-student": {"preset": "small"}},
}  # fmt: skip
TRUTH = {"coco": "instances.json", "nuclei": "instances_train.json"}
SEGMENTER = "deeplabv3_mobilenetv2_voc21.onnx"
STAGE_RUNS = (("coco", 3), ("coco", 8), ("coco", 35), ("nuclei", 5), ("nuclei", 22))
STAGES: dict[str, Mapping[str, Any]] = {
    "shard": {},
    "infer-semantic": {"model": shared_folder() / "weights" / SEGMENTER, "threads": 1},
    "infer-colors": {},
    "infer-teacher": {"threads": 1},
    "fuse": {},
}
PRETRAINED = "mobilenetv2_imagenet_fp16.safetensors"


@dataclass(frozen=True)
class Trained:
    """One network: what is typed, and the calls that differ as its costs do."""

    command: str
    options: Mapping[str, Any]
    calls: Sequence[tuple[str, int, Mapping[str, Any]]]  # data set, images, further options


def _steps(few: int, many: int, batch: int, *, sets: Sequence[str] = tuple(TRUTH)) -> list[tuple[str, int, Any]]:
    """Few steps and many of them on every set, and a few of half the batch."""
    calls = [(one, 16, {"steps": steps, "batch_size": batch}) for one in sets for steps in (few, many)]
    return [*calls, (sets[0], 16, {"steps": few, "batch_size": batch // 2})]


SISEG_CALLS: list[tuple[str, int, Mapping[str, Any]]] = [
    ("coco", 4, {"steps": 4, "batch_size": 4}),
    ("coco", 4, {"steps": 16, "batch_size": 4}),
    ("coco", 32, {"steps": 16, "batch_size": 4}),
    ("coco", 4, {"steps": 4, "batch_size": 2}),
]
TRAININGS = {
    "student small": Trained("train-student", {"preset": "small"}, _steps(6, 60, 4)),
    "student": Trained("train-student", {"image_px": 256}, _steps(4, 16, 2)),
    "student resnet50": Trained("train-student", {"image_px": 256, "backbone": "resnet50"}, _steps(4, 16, 2)),
    "student mask_rcnn": Trained("train-student", {"preset": "small", "model": "mask_rcnn"}, _steps(6, 40, 4)),
    "student query": Trained("train-student", {"preset": "small", "model": "query"}, _steps(6, 40, 4)),
    "mal": Trained("train-teacher", {}, _steps(10, 80, 8)),
    "boxinst": Trained("train-teacher", {"method": "boxinst", "image_px": 320}, _steps(4, 16, 2)),
    "boxteacher": Trained("train-teacher", {"method": "boxteacher", "image_px": 320}, _steps(4, 16, 2)),
    "boxseg": Trained("train-teacher", {"method": "boxseg", "image_px": 320}, _steps(4, 16, 2)),
    "sim": Trained("train-teacher", {"method": "sim", "image_px": 320}, _steps(4, 16, 2)),
    "siseg": Trained("train-siseg", {"label_source": "truth"}, SISEG_CALLS),
    "siseg resnet50": Trained("train-siseg", {"label_source": "truth", "backbone": "resnet50"}, SISEG_CALLS),
}


def row(way: str, sections: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """A way's time for each number of images."""
    steps = [parse_step(name, values) for name, values in sections.items()]
    return {"way": way} | {f"{images:,} images": _hours(steps, images) for images in SIZES}


def _hours(steps: list[Any], images: int) -> str:
    size = Size(images, round(images * BOXES), 1, round(images * BOXES * CROWDED))
    found = [step.forecast(size) for step in steps]
    assert all(one is not None for one in found), "every step of these ways was measured"
    minutes = sum(one.seconds for one in found) / 60
    if minutes < 120:
        return f"{float(f'{minutes:.2g}'):g} min"
    return f"{float(f'{minutes / 60:.2g}'):,.0f} h"


def stage_rows(names: Sequence[str], folder: Path) -> Iterator[dict[str, Any]]:
    """Every stage over every run with what it took, then the fits; the first run is not told, as it compiles."""
    took: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    sizes = []
    for data, images in STAGE_RUNS:
        run = _planned(folder, data, images)
        if "infer-teacher" in names:
            _cost("train-teacher", run, {"steps": 4, "backbone_weights": shared_folder() / "weights" / PRETRAINED})
        size = size_of_plan(run, read_plan(run))
        sizes.append(size)
        for name in names:
            target = RunPaths(folder / f"{data}-{images}-again") if name == "shard" else run
            more = {"images": _source(data) / "images", "annotations": _truth(run)} if name == "shard" else {}
            took[name].append(_cost(name, target, {**STAGES[name], **more, "workers": 1}, keep_models=True))
            if len(sizes) > 1:
                seen = {"boxes": size.boxes, "crowded": size.crowded}
                yield {"stage": name, "on": f"{size.images} of {data}", **seen, "cpu_s": took[name][-1]["cpu_s"]}
    yield from ({"stage": f"{name}: fit", **_fitted_stage(name, sizes[1:], took[name][1:])} for name in names)


def _fitted_stage(name: str, sizes: Sequence[Size], took: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The times of `Cost`."""
    from pseudolabel.teachers.mal.infer import FIRST_VIEWS, MOST_VIEWS  # torch: a child would begin with our memory

    further = FIRST_VIEWS / MOST_VIEWS if name == "infer-teacher" else 0.0
    time = [[1, size.images, size.boxes + further * size.crowded] for size in sizes]
    seconds, _ = nnls(np.array(time), np.array([one["cpu_s"] for one in took]))
    found = dict(zip(("start_s", "image_s", "box_s"), seconds.tolist(), strict=True))
    return found | {"crowded_s": further * found["box_s"]}


def training_rows(name: str, folder: Path) -> Iterator[dict[str, Any]]:
    """Every call of a network with what it took, then the fit."""
    trained, works, took = TRAININGS[name], [], []
    groups = [(data, more.get("batch_size")) for data, _, more in trained.calls]
    for data, images, more in trained.calls:
        config = _config(trained, more, folder)
        run = _planned(folder, data, images)
        plan = read_plan(run)
        works.append(config.work(plan.n_images, plan.n_objects))
        took.append(_cost(trained.command, run, trained.options | more | {"backbone_weights": config.backbone_weights}))
        seen = {"megapixels": works[-1].megapixels, "objects": works[-1].objects, "encoded": works[-1].encoded}
        yield {"training": name, "on": f"{images} of {data}", **more, **seen, **took[-1]}
    yield {"training": f"{name}: fit", "network": " ".join(map(str, config.network)), **_fitted(works, took, groups)}


def _fitted(works: Sequence[Work], took: Sequence[Mapping[str, float]], groups: Sequence[Any]) -> dict[str, float]:
    """The fields of `TrainingCost`; calls of a group share what does not grow, of which the mean is told.

    What comes before the first step and after the last differs from data set to data set, and would blur the rest.
    """
    starts = [one for one, count in Counter(groups).items() if count > 1]
    kept = [place for place, group in enumerate(groups) if group in starts]
    time = [
        [*(groups[place] == one for one in starts), works[place].megapixels, works[place].objects, works[place].encoded]
        for place in kept
    ]
    seconds, _ = nnls(np.array(time, float), np.array([took[place]["cpu_s"] for place in kept]))
    memory = [[1, work.step_megapixels, work.kept] for work in works]
    megabytes, _ = nnls(np.array(memory), np.array([one["peak_mb"] for one in took]))
    parts = [float(seconds[: len(starts)].mean()), *seconds[len(starts) :].tolist()]
    found = dict(zip(("start_s", "megapixel_s", "object_s", "encoded_s"), parts, strict=True))
    found |= dict(zip(("own_mb", "megapixel_mb", "kept_mb"), megabytes.tolist(), strict=True))
    return found | {"disk_mb": max(one["disk_mb"] for one in took)}


def _config(trained: Trained, more: Mapping[str, Any], folder: Path) -> TrainConfig:
    """The config of a call, with weights that are here: of another encoder than MobileNetV2 random ones, at no loss."""
    config = parse_step(trained.command, trained.options | more).config
    assert isinstance(config, TrainConfig)
    if config.backbone == "mobilenet_v2":
        weights = shared_folder() / "weights" / PRETRAINED
    else:
        weights = folder / f"{config.backbone}.safetensors"
        _write_random_weights(config.backbone, weights)
    return config.model_copy(update={"backbone_weights": str(weights)})


def _write_random_weights(backbone: str, path: Path) -> None:
    if not path.exists():
        import timm
        from safetensors.torch import save_file

        save_file(timm.create_model(backbone, pretrained=False).state_dict(), path)


def _planned(folder: Path, data: str, images: int) -> RunPaths:
    """A run of some images with their true masks."""
    run, source = RunPaths(folder / f"{data}-{images}"), _source(data)
    if not run.plan.exists():
        truth = json.loads((source / TRUTH[data]).read_text(encoding="utf-8"))
        chosen = truth["images"][:: len(truth["images"]) // images][:images]
        known = {one["id"] for one in chosen}
        truth |= {"images": chosen, "annotations": [one for one in truth["annotations"] if one["image_id"] in known]}
        _truth(run).write_text(json.dumps(truth), encoding="utf-8")
        _cost("shard", run, {"images": source / "images", "annotations": _truth(run), "workers": 1})
    return run


def _source(data: str) -> Path:
    return shared_folder() / "data" / f"{data}-dev"


def _truth(run: RunPaths) -> Path:
    return run.root.with_suffix(".json")


def _cost(command: str, run: RunPaths, options: Mapping[str, Any], *, keep_models: bool = False) -> dict[str, float]:
    """CPU seconds, peak memory and bytes on disk of a command in a process of its own."""
    if command.startswith("train-"):
        options = options | {"threads": 1, "device": "cpu"}
    if command == "train-student":  # from true masks: what it learns from does not change what a step costs
        options = options | {"learn_from": _truth(run)}
    for name in () if keep_models else ("models", "logs"):
        shutil.rmtree(run.root / name, ignore_errors=True)
    before = _bytes(run)
    typed = [part for name, value in options.items() for part in (f"--{name.replace('_', '-')}", str(value))]
    arguments = [sys.executable, "-m", "pseudolabel", command, str(run.root), *typed]
    process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    said = process.stderr.read()
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(arguments[2:])} ended with {process.returncode}: {said[-2000:]}")
    peak_mb, disk_mb = used.ru_maxrss * 1024 / 1e6, (_bytes(run) - before) / 1e6
    return {"cpu_s": used.ru_utime + used.ru_stime, "peak_mb": peak_mb, "disk_mb": disk_mb}


def _bytes(run: RunPaths) -> int:
    return sum(path.stat().st_size for path in run.root.rglob("*") if path.is_file())


def main() -> None:
    """Print the table, or keep it."""
    parser = script_parser(__doc__)
    parser.add_argument("--stages", action="store_true", help="measure what stages cost")
    parser.add_argument("--trainings", action="store_true", help="measure what trainings cost")
    parser.add_argument("--only", help=f"of these, separated by commas: {', '.join([*STAGES, *TRAININGS])}")
    arguments = parser.parse_args()
    if arguments.stages:
        with tempfile.TemporaryDirectory() as folder:
            names = arguments.only.split(",") if arguments.only else list(STAGES)
            stages = list(stage_rows(names, Path(folder)))
        report("stage_rates", stages, on="some images of coco-dev and nuclei-dev, one thread", seeds=[0])
        return
    if not arguments.trainings:
        on = f"forecasts for one core of the machine that pipelines/forecast.py names, {BOXES:.1f} boxes an image"
        report("rates", [row(way, sections) for way, sections in WAYS.items()], on=on)
        return
    with tempfile.TemporaryDirectory() as folder:
        names = arguments.only.split(",") if arguments.only else list(TRAININGS)
        rows = [one for name in names for one in training_rows(name, Path(folder))]
    report("training_rates", rows, on="some images of coco-dev and nuclei-dev, true masks, one thread", seeds=[0])


if __name__ == "__main__":
    main()
