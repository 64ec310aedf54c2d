"""What each choice of `fuse` is worth: sources, ranking, fusion, score, number of candidates, refinement.

    python tests/benchmarks/fusion_ablation.py RUN --ground-truth instances.json [--case voc32] [--out FILE.json]

reads the manifest and the candidate tables of a finished run and fuses them again under each setting, without writing
to the run. True masks serve the figures alone. `interval` is of the mean IoU, 95 %, by bootstrap over images;
`ece_calibrated` is that of calibrations learned without the image they are measured on.
"""

import argparse
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from harness import report

from pseudolabel.metrics.calibration import expected_calibration_error
from pseudolabel.metrics.comparison import Selection, compare
from pseudolabel.metrics.mask_iou import rle_iou
from pseudolabel.metrics.objects import Prediction, Truth, read_json, read_truth
from pseudolabel.pipelines.calibrate import held_out_scores
from pseudolabel.pipelines.commit import read_part
from pseudolabel.pipelines.paths import RunPaths
from pseudolabel.pipelines.plan import read_plan
from pseudolabel.pipelines.stage import Shard
from pseudolabel.pipelines.stages.fuse import FuseConfig, FuseStage

VOC = (
    "airplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "dining table", "dog",
    "horse", "motorcycle", "person", "potted plant", "sheep", "couch", "train", "tv",
)  # fmt: skip
CASES = {"all": Selection(), "voc": Selection(VOC), "voc32": Selection(VOC, 32 * 32)}
SEED = 0
Row = dict[str, Any]


def settings(sources: list[str]) -> dict[str, Row]:
    """Options of `fuse` by the name of the row; what a row does not say is the default."""
    rules = itertools.product(("bqr", "bpma"), ("qmf", "vote", "best"), ("mqs", "mcs", "code"))
    return {
        **{source: {"sources": [source]} for source in sources},
        "fused": {},
        **{f"fused, {r}, {f}, {s}": {"ranking": r, "fusion": f, "score": s} for r, f, s in rules},
        **{f"fused, K = {k}": {"candidates": str(k)} for k in (1, 2, 5, 10)},
        **{f"fused, min_iou {value}": {"min_iou": value} for value in (0.0, 0.3, 0.7)},
        "fused, scores as given": {"scale": "raw"},
        "fused, scores by support": {"scale": "support"},
        "fused, sources not balanced": {"balance": False},
        **{f"fused, refine {method}": {"refine": method} for method in ("none", "tight", "color")},
        **{f"{source}, refine none": {"sources": [source], "refine": "none"} for source in sources},
    }


def fused_rows(run: RunPaths, options: Row) -> list[Row]:
    """The rows that `fuse` would write for the run."""
    plan = read_plan(run)
    stage = FuseStage(FuseConfig(**options), run)
    stage.setup("cpu")
    rows: list[Row] = []
    for index in range(plan.num_shards):
        inputs = {table: read_part(run.part(table, index, plan.num_shards)) for table in stage.reads()}
        shard = Shard(index, plan.num_shards, Path(plan.images_root), plan.exif)
        rows += stage.run(shard, inputs).to_pylist()
    return [row for row in rows if row["status"] == "ok" and not row["iscrowd"]]


def measured(rows: list[Row], truth: Truth, selection: Selection) -> Row:
    """The figures of one setting."""
    images = {one.annotation_id: one.image_id for one in truth.objects}
    predictions = [
        Prediction(
            row["annotation_id"], images[row["annotation_id"]], row["category_id"], row["segmentation"], row["score"],
            tuple(row["source_bbox_xywh"]),
        )
        for row in rows
        if row["annotation_id"] in images
    ]  # fmt: skip
    figures = compare(truth, predictions, selection, by_id=True)
    low, high = figures["mean_iou_interval"]
    names = ("n", "mean_iou", "iou_over_50", "iou_over_75", "ap", "ap50", "ap75", "spearman", "ece")
    kept = {name: figures[name] for name in names}
    return kept | {"interval": f"{low:.3f} to {high:.3f}", "ece_calibrated": calibrated_error(rows, truth, selection)}


def calibrated_error(rows: list[Row], truth: Truth, selection: Selection) -> float:
    """Calibration error on images that the calibration was not learned from."""
    names = truth.class_names
    chosen = {
        one.annotation_id: one.mask
        for one in truth.objects
        if not one.is_crowd
        and one.area_px >= selection.min_area_px
        and (not selection.categories or names[one.category_id] in selection.categories)
    }
    own = [row for row in rows if row["annotation_id"] in chosen]
    ious = np.array([rle_iou(row["segmentation"], chosen[row["annotation_id"]]) for row in own])
    return expected_calibration_error(held_out_scores(own, ious), ious)


def table(run: RunPaths, ground_truth: Path, cases: list[str], only: str) -> Iterator[Row]:
    """One row per setting and case."""
    truth = read_truth(read_json(ground_truth), where=str(ground_truth))
    sources = [name.removeprefix("candidates/") for name in run.candidate_tables()]
    for name, options in settings(sources).items():
        if only in name:
            rows = fused_rows(run, options)
            for case in cases:
                yield {"setting": name, "case": case} | measured(rows, truth, CASES[case])


def main() -> None:
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--ground-truth", type=Path, required=True)
    parser.add_argument("--case", action="append", choices=list(CASES), help="all and voc32 if not given")
    parser.add_argument("--only", default="", help="settings whose name contains this")
    given, _ = parser.parse_known_args()
    rows = list(table(RunPaths(given.run), given.ground_truth, given.case or ["all", "voc32"], given.only))
    report("fusion_ablation", rows, on=read_plan(RunPaths(given.run)).source.rsplit("/", 1)[-1], seeds=[SEED])


if __name__ == "__main__":
    main()
