"""`demo`: draw scenes, train a small segmenter on part of them, and run the whole chain on the rest."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from pseudolabel.errors import IncompleteError
from pseudolabel.files import write_text_atomically
from pseudolabel.pipelines.chain import parse_chain, run_chain
from pseudolabel.pipelines.demo.segmenter import ENCODER, DemoData, DemoSegmenter, make_demo_data, train_demo_segmenter
from pseudolabel.pipelines.engines.base import EngineOptions
from pseudolabel.pipelines.look.picture import draw_pictures
from pseudolabel.pipelines.options.tools import PictureConfig
from pseudolabel.pipelines.run.paths import RunPaths
from pseudolabel.pipelines.runner import RunOptions
from pseudolabel.training.checkpoint import read_config

Say = Callable[[str], None]
OnSummary = Callable[[dict[str, Any]], None]

# heads on the features of the demo's own segmenter; one thread, as with the segmenter's own training
_SISEG = {"head_width": 64, "crop": 192, "steps": 60, "learning_rate": 4e-3, "threads": 1, "device": "cpu"}
# a box-conditioned teacher that starts from the segmenter's encoder and from the masks of the two sources before it
_TEACHER: dict[str, Any] = {
    "backbone": ENCODER, "freeze": False, "crop_px": 64, "epochs": 4, "least_steps": 1,
    "guides": ["semantic", "siseg"], "guided_from": 1, "threads": 1, "device": "cpu",
}  # fmt: skip
# a CondInst that starts from the segmenter's encoder; 240 steps
STUDENT: dict[str, Any] = {
    "model": "condinst", "backbone": ENCODER, "width": 64, "convs": 2, "finest_px": 25.6,
    "image_px": 256, "predict_px": 320, "smallest_scale": 0.7, "largest_scale": 1.4, "views": "weak",
    "epochs": 24, "batch_size": 4, "learning_rate": 2e-3, "encoder_learning_rate": 1e-3, "ema": 0.98,
    "threads": 1, "device": "cpu",
}  # fmt: skip
# so few images that starting worker processes would take longer than the work
_OPTIONS = RunOptions(EngineOptions(name="inline"))


@dataclass(frozen=True, slots=True)
class DemoResult:
    """What the demo shows at its end."""

    figures: dict[str, Any]  # of the pseudo labels
    students: dict[str, dict[str, float]]  # of one student by what it learned from, `full` and `pseudo`
    summaries: list[dict[str, Any]]
    pictures: list[Path]


def run_demo(folder: Path, say: Say, on_summary: OnSummary) -> DemoResult:
    """The whole chain on drawn scenes below `folder`; what an earlier call finished is not done again.

    Args:
        say: gets one line before each step that takes a while.
        on_summary: gets each stage's summary as it ends.
    """
    data = make_demo_data(folder / "data")
    say(f"scenes drawn in {data.scenes}")
    with _one_thread(), _Beside() as beside:  # one thread of each is all that networks this small can use
        models = _segmenter(data, folder, say)
        files = _student_files(data, folder, models)
        say("training a student on the true masks beside what follows")
        beside.start(files["full"])
        summaries = _labelled(data, folder, models, on_summary)
        say("training the same student on the pseudo labels (about a minute)")
        beside.start(files["pseudo"])
        for summary in beside.summaries():
            on_summary(summary)
    students = {name: read_config(_student_run(folder, name).model("student"))["figures"] for name in files}
    shown = PictureConfig(pictures=4, objects=36, ground_truth=data.scenes / "instances.json")
    pictures = draw_pictures(_run(folder), shown)
    return DemoResult(summaries[-1]["figures"], students, summaries, pictures)


def student_table(students: Mapping[str, Mapping[str, float]]) -> str:
    """AP of the same student after learning from true masks and from pseudo labels, on scenes that are new to both."""
    lines = [f"{'a student trained on':22}{'AP':>7}{'AP50':>7}{'AP75':>7}"]
    for name, text in (("full", "true masks"), ("pseudo", "pseudo labels")):
        cells = (students[name].get(f"validation_{key}", 0.0) for key in ("ap", "ap50", "ap75"))
        lines.append(f"{text:22}" + "".join(f"{cell:7.3f}" for cell in cells))
    full, pseudo = (students[name].get("validation_ap", 0.0) for name in ("full", "pseudo"))
    return "\n".join([*lines, f"{pseudo / full:.1%} of the AP is left" if full else "nothing was found"])


def label_sections(scenes: Path, segmenter: Path) -> dict[str, Any]:
    """The run file's sections that label drawn scenes out of their boxes and the segmenter's folder, its encoder's file
    beside it.
    """
    return {
        "shard": _shard(scenes),
        "infer-semantic": {"model": f"smp:{segmenter}"},
        "train-siseg": {"backbone": f"smp:{segmenter}", **_SISEG},
        "infer-siseg": {"weak_cells": 0.7, "pictures": 1},
        "train-teacher": {**_TEACHER, "backbone_weights": str(segmenter.with_name("encoder.safetensors").absolute())},
        "infer-teacher": {"per_box": 2, "threads": 1},
        "fuse": {},
    }


def _shard(scenes: Path) -> dict[str, Any]:
    return {"images": str(scenes / "images"), "annotations": str(scenes / "boxes.json"), "shards": 4}


def _run(folder: Path) -> RunPaths:
    return RunPaths(folder / "run")


@contextmanager
def _one_thread() -> Iterator[None]:
    """Sums on one thread do not depend on the machine, and networks this small gain nothing by more."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _segmenter(data: DemoData, folder: Path, say: Say) -> Path:
    """The folder of the trained segmenter and its encoder, kept from an earlier call: the same scenes give the same."""
    models = folder / "models"
    if (models / "segmenter.onnx.done").exists():
        say(f"segmenter kept from before: {models / 'segmenter'}")
        return models
    say("training a small segmenter on drawn scenes (less than a minute)")
    result: DemoSegmenter = train_demo_segmenter(data, models)
    say(
        f"segmenter: mean class IoU {result.mean_class_iou:.3f} on scenes it has not seen; "
        f"its ONNX form differs by {result.export_difference:.1e} in logits"
    )
    (models / "segmenter.onnx.done").touch()
    return models


def _labelled(data: DemoData, folder: Path, models: Path, on_summary: OnSummary) -> list[dict[str, Any]]:
    """The chain up to the pseudo labels and their figures."""
    sections = label_sections(data.scenes, models / "segmenter")
    truth = {"ground_truth": str(data.scenes / "instances.json")}
    return _chained(_run(folder), {**sections, "evaluate": truth}, on_summary)


def _student_files(data: DemoData, folder: Path, models: Path) -> dict[str, Path]:
    """The run file of a student on true masks, `full`, and of one on the pseudo labels, `pseudo`."""
    files = {name: folder / f"student-{name}.yaml" for name in ("full", "pseudo")}
    for name, file in files.items():
        sections = {"run": str(_student_run(folder, name).root.absolute()), **_student_sections(data, models, name)}
        write_text_atomically(file, yaml.safe_dump(sections, sort_keys=False))
    return files


def _student_run(folder: Path, name: str) -> RunPaths:
    return _run(folder) if name == "pseudo" else RunPaths(folder / "reference")


def _student_sections(data: DemoData, models: Path, name: str) -> dict[str, Any]:
    """The sections of a student's run file; `full` learns from true masks, in a run of its own."""
    options = {
        **STUDENT,
        "backbone_weights": str((models / "encoder.safetensors").absolute()),
        "validation": str((data.test / "instances.json").absolute()),
        "validation_images": str((data.test / "images").absolute()),
        "validate_every": 0,
    }
    if name == "pseudo":  # the last one: both cores are its own
        return {"train-student": {**options, "threads": 2}}
    labels = {"learn_from": str((data.scenes / "instances.json").absolute()), "mask_weight": "none"}
    return {"shard": _shard(data.scenes.absolute()), "train-student": {**options, **labels}}


class _Beside:
    """Run files that run beside this process, each in one of its own; none is left running when the block ends."""

    def __init__(self) -> None:
        self._running: dict[Path, subprocess.Popen[str]] = {}

    def __enter__(self) -> "_Beside":
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._running.values():
            if process.poll() is None:
                process.terminate()
                process.wait()

    def start(self, file: Path) -> None:
        command = [sys.executable, "-P", "-m", "pseudolabel.cli.main", "run", "--engine", "inline", "--json", str(file)]
        self._running[file] = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    def summaries(self) -> list[dict[str, Any]]:
        """What they did, once they have ended.

        Raises:
            IncompleteError: one of them failed; it has said why.
        """
        printed = [process.communicate()[0] for process in self._running.values()]
        codes = {file.name: process.returncode for file, process in self._running.items()}
        failed = [f"{name} (exit {code})" for name, code in codes.items() if code]
        if failed:
            raise IncompleteError(f"the demo's training of a student failed: {', '.join(failed)}")
        return [summary for text in printed for summary in json.loads(text)["stages"]]


def _chained(run: RunPaths, sections: dict[str, Any], on_summary: OnSummary) -> list[dict[str, Any]]:
    chain = parse_chain({"run": str(run.root), **sections}, where="demo")
    summaries = []
    for summary in run_chain(chain, _OPTIONS):
        summaries.append(summary)
        on_summary(summary)
    return summaries
