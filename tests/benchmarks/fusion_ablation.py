"""What each choice of `fuse` is worth: sources, ranking, fusion, score, number of candidates, refinement.

    python tests/benchmarks/fusion_ablation.py --set coco --folder RUNS      # or coco_boxes, nuclei, drawn
    python tests/benchmarks/fusion_ablation.py RUN --ground-truth instances.json [--case voc32]

The first form makes the run itself with the product's own stages, or goes on with what of it is in RUNS. The second
takes a finished run. Either way its candidate tables are fused again under each setting, without writing to the run.
True masks serve the figures alone. `interval` is of the mean IoU, 95 %, by bootstrap over images; `ece_calibrated` is
that of calibrations learned without the image they are measured on. `gain` is the mean IoU above that of the best
one source, object by object, with its own 95 % interval.
"""

import multiprocessing
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from harness import report, script_parser, shared_folder

from pseudolabel.datasets.coco_file import read_coco
from pseudolabel.fusion.calibration import held_out_scores
from pseudolabel.metrics.calibration import bootstrap_interval, expected_calibration_error
from pseudolabel.metrics.comparison import Selection, compare
from pseudolabel.metrics.mask_iou import object_ious, rle_iou
from pseudolabel.metrics.objects import Prediction, TrueObject, Truth, read_truth
from pseudolabel.pipelines.chain import parse_chain, run_chain
from pseudolabel.pipelines.demo.chain import label_sections
from pseudolabel.pipelines.demo.segmenter import make_demo_data, train_demo_segmenter
from pseudolabel.pipelines.options.stages.fuse import FuseConfig
from pseudolabel.pipelines.planning.plan import read_plan
from pseudolabel.pipelines.run.commit import read_part
from pseudolabel.pipelines.run.paths import RunPaths
from pseudolabel.pipelines.runner import RunOptions
from pseudolabel.pipelines.stage import Shard
from pseudolabel.pipelines.stages.fuse import FuseStage

VOC = (
    "airplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "dining table", "dog",
    "horse", "motorcycle", "person", "potted plant", "sheep", "couch", "train", "tv",
)  # fmt: skip
CASES = {"all": Selection(), "voc": Selection(VOC), "voc32": Selection(VOC, 32 * 32)}
SCORES = ("evidence", "consensus", "expected", "mqs", "mcs", "mcs-paper", "code")
SEED = 0
ENCODER, SEGMENTER = "mobilenetv2_imagenet_fp16.safetensors", "deeplabv3_mobilenetv2_voc21.onnx"
TEACHER = {"precision": "bf16", "threads": 1}
GUIDED = {"rounds": 2, "guides": ["semantic"]}
Row = dict[str, Any]


def settings(sources: list[str]) -> dict[str, Row]:
    """Options of `fuse` by the name of the row; what a row does not say is the default."""
    return {
        **{source: {"sources": [source]} for source in sources},
        "fused": {},
        **{
            f"fused without {one}": {"sources": [s for s in sources if s != one]} for one in sources if len(sources) > 2
        },
        **{f"fused, ranking {name}": {"ranking": name} for name in ("bqr", "bpma")},
        **{f"fused, fusion {name}": {"fusion": name} for name in ("qmf", "vote", "best")},
        **{f"fused, score {name}": {"score": name} for name in SCORES},
        "fused, as the released code": {"fusion": "vote", "score": "code", "per_source": "20"},
        **{f"fused, K = {k}": {"per_source": str(k)} for k in (1, 10, "adaptive")},
        "fused, min_iou 0": {"min_iou": 0.0},
        **{f"fused, tau_pixel {value}": {"tau_pixel": value} for value in (0.5, 0.55, 0.6, 0.7)},
        **{f"fused, exclusive {among}": {"exclusive": among} for among in ("none", "class", "all")},
        **{f"fused, class_margin {value}": {"class_margin": value} for value in (0.2, 0.4, 1.0)},
        "fused, not upright": {"upright": False},
        "fused, scores as given": {"box_scores": "raw"},
        "fused, scores by support": {"box_scores": "support"},
        "fused, sources not balanced": {"balance": False},
        "fused, guides not shared": {"share_guides": False},
        **{f"fused, refine {method}": {"refine": method} for method in ("none", "tight", "color")},
        **{f"{source}, refine none": {"sources": [source], "refine": "none"} for source in sources},
    }


def of_use(options: Row) -> Row:
    """The options without what does nothing beside the others, which `fuse` refuses."""
    alone = options.get("exclusive") == "none"
    return {name: value for name, value in options.items() if not (alone and name == "upright")}


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


def predictions_of(rows: list[Row], truth: Truth) -> list[Prediction]:
    """The masks of rows whose object is in the truth."""
    images = {one.annotation_id: one.image_id for one in truth.objects}
    return [
        Prediction(
            row["annotation_id"], images[row["annotation_id"]], row["category_id"], row["segmentation"], row["score"],
            tuple(row["source_bbox_xywh"]),
        )
        for row in rows
        if row["annotation_id"] in images
    ]  # fmt: skip


def measured(rows: list[Row], truth: Truth, selection: Selection) -> Row:
    """The figures of one setting."""
    figures = compare(truth, predictions_of(rows, truth), selection, by_id=True)
    low, high = figures["mean_iou_interval"]
    names = ("n", "mean_iou", "iou_over_50", "iou_over_75", "ap", "ap50", "ap75", "spearman", "ece")
    kept = {name: figures[name] for name in names}
    return kept | {"interval": f"{low:.3f} to {high:.3f}", "ece_calibrated": calibrated_error(rows, truth, selection)}


def selected(truth: Truth, selection: Selection) -> list[TrueObject]:
    """The objects that count."""
    names = truth.class_names
    return [
        one
        for one in truth.objects
        if not one.is_crowd
        and one.area_px >= selection.min_area_px
        and (not selection.categories or names[one.category_id] in selection.categories)
    ]


def gain(ious: np.ndarray, best: np.ndarray, objects: list[TrueObject]) -> str:
    """Mean difference of IoU object by object, with its interval under resampling of images."""
    difference = ious - best
    images = np.array([one.image_id for one in objects], dtype=np.int64)
    low, high = bootstrap_interval(lambda rows: float(difference[rows].mean()), images)
    return f"{difference.mean():+.4f} ({low:+.4f} to {high:+.4f})"


def calibrated_error(rows: list[Row], truth: Truth, selection: Selection) -> float:
    """Calibration error on images that the calibration was not learned from."""
    chosen = {one.annotation_id: one.mask for one in selected(truth, selection)}
    own = [row for row in rows if row["annotation_id"] in chosen]
    ious = np.array([rle_iou(row["segmentation"], chosen[row["annotation_id"]]) for row in own])
    return expected_calibration_error(held_out_scores(own, ious), ious)


def table(
    run: RunPaths, ground_truth: Path, cases: list[str], *, only: str = "", base: Row | None = None, jobs: int = 1
) -> Iterator[Row]:
    """One row per setting and case; `jobs` processes fuse."""
    truth = read_truth(read_coco(ground_truth))
    objects = {case: found for case in cases if (found := selected(truth, CASES[case]))}
    sources = [name.removeprefix("candidates/") for name in run.candidate_tables()]
    wanted = {name: of_use((base or {}) | options) for name, options in settings(sources).items()}
    wanted = {name: options for name, options in wanted.items() if only in name or name in sources}
    best: dict[str, np.ndarray] = {}
    done: dict[str, dict[str, Row]] = {}  # figures by options: many rows name the default
    for name, key, rows in _fused_once(run, wanted, jobs):
        if rows is not None:
            predictions = predictions_of(rows, truth)
            done[key] = {}
            for case in objects:
                ious = object_ious(objects[case], predictions)
                if name in sources and (case not in best or ious.mean() > best[case].mean()):
                    best[case] = ious
                more = "" if name in sources else gain(ious, best[case], objects[case])
                done[key][case] = measured(rows, truth, CASES[case]) | {"gain": more}
        for case in objects:
            yield {"setting": name, "case": case} | done[key][case]


def _fused_once(run: RunPaths, wanted: dict[str, Row], jobs: int) -> Iterator[tuple[str, str, list[Row] | None]]:
    """Each setting's name and key with its rows, which are None where an earlier setting means the same."""
    keys = {name: FuseConfig(**options).model_dump_json() for name, options in wanted.items()}
    first = {key: name for name, key in reversed(keys.items())}
    with multiprocessing.get_context("spawn").Pool(jobs, torch.set_num_threads, (1,)) as pool:
        tasks = {key: pool.apply_async(fused_rows, (run, wanted[name])) for key, name in reversed(first.items())}
        for name, key in keys.items():
            yield name, key, tasks[key].get() if first[key] == name else None


@dataclass(frozen=True)
class Case:
    """A finished run with its truth, and the selections that its figures are taken over."""

    run: RunPaths
    truth: Path
    selections: tuple[str, ...]
    base: Row = field(default_factory=dict)  # options of `fuse` in every row


def coco(folder: Path) -> Case:
    """142 photographs: a pretrained segmenter of 21 classes, and one teacher of their boxes and of it."""
    return _photographs(folder / "coco", guided=True)


def coco_boxes(folder: Path) -> Case:
    """142 photographs: a pretrained segmenter of 21 classes, and one teacher of their boxes alone."""
    return _photographs(folder / "coco_boxes", guided=False)


def _photographs(folder: Path, *, guided: bool) -> Case:
    data, weights = shared_folder() / "data" / "coco-dev", shared_folder() / "weights"
    encoder = str(weights / SEGMENTER)
    sections = {
        "shard": {"images": str(data / "images"), "annotations": str(data / "boxes.json"), "shards": 1},
        "infer-semantic": {"model": f"onnx:{encoder}"},
        "train-teacher": {"backbone_weights": encoder, **(GUIDED if guided else {"rounds": 2}), **TEACHER},
        "infer-teacher": {},
    }
    return Case(finished(folder, sections), data / "instances.json", ("all", "voc32"))


def nuclei(folder: Path) -> Case:
    """110 microscopic images, for which there is no segmenter: a teacher that learned from their boxes, and colours."""
    data, weights = shared_folder() / "data" / "nuclei-dev", shared_folder() / "weights"
    sections = {
        "shard": {"images": str(data / "images"), "annotations": str(data / "boxes_train.json"), "shards": 2},
        "infer-colors": {},
        "train-teacher": {"backbone_weights": str(weights / ENCODER), "epochs": 3, "crop_px": 96, **TEACHER},
        "infer-teacher": {},
    }
    return Case(finished(folder / "nuclei", sections), data / "instances_train.json", ("all",), {"upright": False})


def drawn(folder: Path) -> Case:
    """The demo's scenes, with the demo's sources."""
    data = make_demo_data(folder / "drawn" / "data")
    models = folder / "drawn" / "models"
    if not (models / "segmenter").is_dir():
        train_demo_segmenter(data, models)
    sections = label_sections(data.scenes, models / "segmenter")
    del sections["fuse"]  # the rows fuse
    return Case(finished(folder / "drawn" / "run", sections), data.scenes / "instances.json", ("all",))


def finished(folder: Path, sections: Row) -> RunPaths:
    """The run of these sections, complete."""
    chain = parse_chain({"run": str(folder), **sections}, where="fusion_ablation")
    for _ in run_chain(chain, RunOptions()):
        pass
    return chain.run


SETS = {"coco": coco, "coco_boxes": coco_boxes, "nuclei": nuclei, "drawn": drawn}


def main() -> None:
    torch.set_num_threads(1)
    parser = script_parser(__doc__)
    parser.add_argument("run", type=Path, nargs="?")
    parser.add_argument("--ground-truth", type=Path)
    parser.add_argument("--case", action="append", choices=list(CASES), help="default: all that has objects")
    parser.add_argument("--set", choices=list(SETS), help="make the run, too")
    parser.add_argument("--folder", type=Path, help="where the runs of --set are made and kept")
    parser.add_argument("--jobs", type=int, default=1, help="processes that fuse")
    parser.add_argument("--only", default="", help="settings whose name contains this")
    given = parser.parse_args()
    if given.set:
        with tempfile.TemporaryDirectory() as scratch:
            case = SETS[given.set](given.folder or Path(scratch))
            rows = list(
                table(case.run, case.truth, list(case.selections), only=given.only, base=case.base, jobs=given.jobs)
            )
        report(f"fusion_ablation_{given.set}", rows, on=f"{given.set}: {SETS[given.set].__doc__}", seeds=[SEED])
        return
    if not (given.run and given.ground_truth):
        parser.error("name a RUN and --ground-truth, or a --set")
    rows = list(
        table(RunPaths(given.run), given.ground_truth, given.case or ["all", "voc32"], only=given.only, jobs=given.jobs)
    )
    report("fusion_ablation", rows, on=read_plan(RunPaths(given.run)).source.rsplit("/", 1)[-1], seeds=[SEED])


if __name__ == "__main__":
    main()
