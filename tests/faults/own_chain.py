"""Whole runs over drawn scenes: one that needs no network, and the demo's own with all its trainings, made short."""

import hashlib
import json
from pathlib import Path
from typing import Any

import torch

from pseudolabel.pipelines.chain import parse_chain, run_chain
from pseudolabel.pipelines.demo.chain import STUDENT, label_sections
from pseudolabel.pipelines.demo.segmenter import Recipe, make_demo_data, train_demo_segmenter
from pseudolabel.pipelines.engines.base import EngineOptions
from pseudolabel.pipelines.run.paths import RunPaths
from pseudolabel.pipelines.runner import RunOptions


def draw_scenes(folder: Path, count: int = 12) -> Path:
    """A folder of scenes with boxes and label maps."""
    return make_demo_data(folder, train=1, scenes=count, size_hw=(96, 96)).scenes


def run_scenes(scenes: Path, run: Path, engine: str | EngineOptions = "inline", shards: int = 4) -> RunPaths:
    """A run over the scenes by an engine; label maps come from their PNGs."""
    classes = (scenes / "labels" / "classes.txt").read_text().split()
    semantic = {"model": f"labels:{scenes}/labels", "label_format": "raw", "ignore_index": 255, "classes": classes}
    values: dict[str, Any] = {
        "run": str(run),
        "shard": {"images": str(scenes / "images"), "annotations": str(scenes / "boxes.json"), "shards": shards},
        "infer-semantic": {**semantic, "device": "cpu"},
        "fuse": {"device": "cpu"},
    }
    for _ in run_chain(parse_chain(values, where="test"), RunOptions(engine)):
        pass
    return RunPaths(run)


def run_demo_chain(
    folder: Path, run: Path, engine: str | EngineOptions = "inline"
) -> tuple[RunPaths, list[dict[str, Any]]]:
    """Every step of `pseudolabel demo` over four scenes, trainings of a few steps; the run and its summaries.

    Args:
        folder: takes scenes and segmenter, or holds them from an earlier call.
    """
    data = make_demo_data(folder / "data", train=4, scenes=4, test=1)
    models = folder / "models"
    if not models.exists():
        train_demo_segmenter(data, models, Recipe(steps=3, batch=2, threads=1))
    sections = label_sections(data.scenes, models / "segmenter")
    sections["shard"]["shards"] = 2
    sections["train-siseg"] |= {"steps": 2}
    student = {"epochs": 2, "image_px": 96, "predict_px": 96, "backbone_weights": str(models / "encoder.safetensors")}
    values = {
        "run": str(run),
        **sections,
        "train-student": {**STUDENT, **student},
        "evaluate": {"ground_truth": str(data.scenes / "instances.json")},
    }
    torch.set_num_threads(1)
    summaries = list(run_chain(parse_chain(values, where="demo"), RunOptions(engine)))
    return RunPaths(run), summaries


def check_demo_chain(folder: Path, engine: EngineOptions | str) -> None:
    """The demo's chain through an engine gives what this process gives; a second time nothing is left to do."""
    here, expected = run_demo_chain(folder, folder / "here")
    there, found = run_demo_chain(folder, folder / "there", engine)
    assert digests(there) == digests(here)
    tables = {path.split("/part-")[0] for path in digests(there) if "/part-" in path}
    assert tables >= {"plan", "manifest", "semantic", "candidates/semantic", "candidates/siseg", "pseudo"}
    assert {path.name for path in (there.root / "models").glob("*.safetensors")} == {
        "siseg.safetensors",
        "student.safetensors",
        "teacher.safetensors",
    }
    assert found[-1]["figures"] == expected[-1]["figures"]
    again = run_demo_chain(folder, folder / "there", engine)[1]
    stages = [one["attempted"] for one in expected if "attempted" in one]
    assert [one["attempted"] for one in again if "attempted" in one] == [0] * len(stages)
    assert [one["trained"] for one in again if "trained" in one] == [False] * 3


def digests(run: RunPaths) -> dict[str, str]:
    """sha256 of every part, export and model of a run, by its path."""
    exports = [run.table("pseudo") / name for name in ("instances.json", "results.json")]
    models = (run.root / "models").glob("*.safetensors")
    paths = [*run.root.rglob("part-*.parquet"), *exports, *models]
    return {str(path.relative_to(run.root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(paths)}


def masks(run: RunPaths) -> dict[int, tuple[Any, float]]:
    """Mask and score of every exported annotation, by its id."""
    content = json.loads((run.table("pseudo") / "instances.json").read_text())
    return {row["id"]: (row["segmentation"], row["score"]) for row in content["annotations"]}
