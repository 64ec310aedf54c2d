"""A whole run over drawn scenes that needs no network: label maps from files, candidates, fused labels, COCO files."""

import hashlib
import json
from pathlib import Path
from typing import Any

from pseudolabel.pipelines.chain import parse_chain, run_chain
from pseudolabel.pipelines.demo import make_demo_data
from pseudolabel.pipelines.engines.base import EngineOptions
from pseudolabel.pipelines.paths import RunPaths
from pseudolabel.pipelines.runner import RunOptions

TABLES = ("plan", "manifest", "semantic", "candidates/semantic", "pseudo")


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


def digests(run: RunPaths) -> dict[str, str]:
    """sha256 of every part and export of a run, by its path."""
    paths = [path for table in TABLES for path in run.table(table).iterdir()]
    return {str(path.relative_to(run.root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(paths)}


def masks(run: RunPaths) -> dict[int, tuple[Any, float]]:
    """Mask and score of every exported annotation, by its id."""
    content = json.loads((run.table("pseudo") / "instances.json").read_text())
    return {row["id"]: (row["segmentation"], row["score"]) for row in content["annotations"]}
