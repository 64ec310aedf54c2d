"""Fused labels with and without SISeg as a source, through the product's own stages; used by `siseg_ablation.py`."""

import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from fusion_ablation import CASES, fused_rows
from PIL import Image

from pseudolabel.datasets.coco_file import read_coco
from pseudolabel.metrics.comparison import compare
from pseudolabel.metrics.objects import Prediction, Truth, read_truth
from pseudolabel.pipelines.planning.make_plan import PlanConfig, make_plan
from pseudolabel.pipelines.run.paths import RunPaths
from pseudolabel.pipelines.stage import StageConfig
from pseudolabel.pipelines.stages.infer_semantic import InferSemanticConfig
from pseudolabel.pipelines.stages.infer_siseg import InferSisegConfig
from pseudolabel.pipelines.stages.semantic_candidates import SemanticCandidatesConfig
from pseudolabel.pipelines.stages.shard import ShardConfig
from pseudolabel.pipelines.work.job import ShardWorker, make_job

Row = dict[str, Any]


@dataclass(frozen=True)
class FusedData:
    """Pictures, a COCO file with masks of which a run gets the boxes alone, and which of both count."""

    images: Path
    annotations: Path
    image_ids: Sequence[int]
    objects: str  # a key of fusion_ablation.CASES


def fused_figures(data: FusedData, semantic: Row, weights: Path) -> list[Row]:
    """Figures of the labels that `fuse` makes of the given boxes: without this source, with it, and of it alone.

    Args:
        data: what is labelled.
        semantic: options of `infer-semantic`.
        weights: a trained model of SISeg.
    """
    with tempfile.TemporaryDirectory() as name:
        run, truth = RunPaths(Path(name) / "run"), _write_part(Path(name), data.annotations, set(data.image_ids))
        make_plan(run, PlanConfig(images=str(data.images), annotations=Path(name) / "boxes.json", shards=1))
        _work(run, "shard", ShardConfig())
        _work(run, "infer-semantic", InferSemanticConfig(**semantic))
        _work(run, "semantic-candidates", SemanticCandidatesConfig())
        _work(run, "infer-siseg", InferSisegConfig(weights=weights))
        sources = {"fused, without": ["semantic"], "fused, with": ["semantic", "siseg"], "siseg alone": ["siseg"]}
        return [{"setting": setting} | _figures(run, truth, names, data.objects) for setting, names in sources.items()]


def write_labels(folder: Path, labels: dict[str, np.ndarray]) -> None:
    """Label maps as PNGs under their pictures' names."""
    folder.mkdir(parents=True, exist_ok=True)
    for file_name, label in labels.items():
        Image.fromarray(label).save(folder / Path(file_name).with_suffix(".png").name)


def _write_part(folder: Path, annotations: Path, image_ids: set[int]) -> Truth:
    content = json.loads(annotations.read_text())
    images = [row for row in content["images"] if row["id"] in image_ids]
    rows = [row for row in content["annotations"] if row["image_id"] in image_ids]
    part = {**content, "images": images, "annotations": rows}
    (folder / "truth.json").write_text(json.dumps(part))
    boxes = [{key: value for key, value in row.items() if key not in ("segmentation", "area")} for row in rows]
    (folder / "boxes.json").write_text(json.dumps({**part, "annotations": boxes}))
    return read_truth(read_coco(folder / "truth.json"))


def _work(run: RunPaths, stage: str, config: StageConfig) -> None:
    """The run's one shard in this process, so that its CPU time is this script's."""
    if not ShardWorker(make_job(run, stage, config, "cpu")).attempt(0):
        raise RuntimeError(run.failure(stage, 0).read_text())


def _figures(run: RunPaths, truth: Truth, sources: list[str], objects: str) -> Row:
    images = {one.annotation_id: one.image_id for one in truth.objects}
    predictions = [
        Prediction(
            row["annotation_id"], images[row["annotation_id"]], row["category_id"], row["segmentation"], row["score"],
            tuple(row["source_bbox_xywh"]),
        )
        for row in fused_rows(run, {"sources": sources})
    ]  # fmt: skip
    figures = compare(truth, predictions, CASES[objects], by_id=True)
    low, high = figures["mean_iou_interval"]
    kept = {name: figures[name] for name in ("n", "mean_iou", "iou_over_50", "iou_over_75", "ap", "ap50", "ap75")}
    return {"objects": objects} | kept | {"interval": f"{low:.3f} to {high:.3f}"}
