"""Box-conditioned teacher on coco-dev: trained on its boxes alone, candidates averaged, compared with the true masks.

`--epochs`, `--batch-size`, `--crop-px`, `--last-crop-px`, `--teacher-from`, `--pairwise-weight`, `--no-copy-paste`,
`--drawn`, `--seed` change the training, `--run DIR` keeps the run folder. One core (`--threads`) and the ImageNet
weights of the shared folder; a mask is the mean of its candidates above one half, cut to its box, and in the rows
`fused` what `fuse` makes of the teacher's candidates and, where guided, the segmenter's. Seconds are CPU time.

    python tests/benchmarks/coco_dev_mal.py                          # from boxes alone, an ImageNet encoder
    python tests/benchmarks/coco_dev_mal.py --segmenter --rounds 2   # from boxes alone, a segmenter's encoder
    python tests/benchmarks/coco_dev_mal.py --guided --rounds 2  # and its masks between rounds
"""

import argparse
import json
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from harness import report, script_parser, shared_folder

from pseudolabel.masks import pixel_window, resample
from pseudolabel.metrics.mask_iou import rle_iou
from pseudolabel.pipelines.options.stages.fuse import FuseConfig
from pseudolabel.pipelines.planning.make_plan import PlanConfig, make_plan
from pseudolabel.pipelines.run.commit import read_part
from pseudolabel.pipelines.run.paths import RunPaths
from pseudolabel.pipelines.runner import RunOptions, run_stage
from pseudolabel.pipelines.stage import StageConfig
from pseudolabel.pipelines.stages.infer_teacher import InferTeacherConfig
from pseudolabel.pipelines.steps import parse_step
from pseudolabel.pipelines.trainers.base import run_training
from pseudolabel.records import soft_mask_from_struct
from pseudolabel.rle import decode, encode, from_segmentation
from pseudolabel.teachers.mal.config import MalConfig

# fmt: off
VOC = frozenset([
    "airplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "dining table", "dog",
    "horse", "motorcycle", "person", "potted plant", "sheep", "couch", "train", "tv",
])
# fmt: on
MIN_AREA_PX = 1024
IMAGENET, SEGMENTER = "mobilenetv2_imagenet_fp16.safetensors", "deeplabv3_mobilenetv2_voc21.onnx"
VIEWS = (1, 2, 6)


def main() -> None:
    parser = script_parser(__doc__)
    parser.add_argument("--epochs", type=float, default=MalConfig.model_fields["epochs"].default)
    parser.add_argument("--batch-size", type=int, default=MalConfig.model_fields["batch_size"].default)
    parser.add_argument("--crop-px", type=int, default=MalConfig.model_fields["crop_px"].default)
    parser.add_argument("--last-crop-px", type=int, help="with --rounds of 2 or more")
    parser.add_argument("--teacher-from", type=float, default=MalConfig.model_fields["teacher_from"].default)
    parser.add_argument("--pairwise-weight", type=float, default=MalConfig.model_fields["pairwise_weight"].default)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of training and inference")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--no-copy-paste", action="store_true", help="no object over another one's crop")
    parser.add_argument("--drawn", type=float, default=MalConfig.model_fields["drawn"].default, help="objects per box")
    parser.add_argument("--segmenter", action="store_true", help="start from the segmenter's encoder")
    parser.add_argument("--guided", action="store_true", help="and use the segmenter's masks between the rounds")
    parser.add_argument("--run", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        run = RunPaths(options.run or Path(scratch) / "run")
        seconds = _train(run, options)
        rows = [row | seconds for row in _rows(run)]
    name = "coco_dev_mal" + ("_guided" if options.guided else "_segmenter" if options.segmenter else "")
    report(name, rows, on="coco-dev, 1302 boxes of 142 images", seeds=[options.seed])


def _train(run: RunPaths, options: argparse.Namespace) -> dict[str, float]:
    """Plan, manifest, teacher and candidates; CPU and wall seconds of the last two."""
    shared = shared_folder()
    data = shared / "data" / "coco-dev"
    make_plan(run, PlanConfig(images=data / "images", annotations=data / "boxes.json", shards=1))
    run_stage(run, "shard", StageConfig(workers=1))
    if options.guided:
        _semantic_masks(run)
    config = MalConfig(
        backbone_weights=str(shared / "weights" / (SEGMENTER if options.segmenter or options.guided else IMAGENET)),
        epochs=options.epochs,
        batch_size=options.batch_size,
        crop_px=options.crop_px,
        teacher_from=options.teacher_from,
        pairwise_weight=options.pairwise_weight,
        rounds=options.rounds,
        drawn=options.drawn,
        copy_paste=not options.no_copy_paste,
        guides=["semantic"] if options.guided else [],
        **({} if options.last_crop_px is None else {"last_crop_px": options.last_crop_px}),
        seed=options.seed,
        device="cpu",
        threads=options.threads,
        precision="bf16",
    )
    cpu_s, wall_s = time.process_time(), time.perf_counter()
    run_training(run, "train-teacher", config)
    cpu_s, wall_s = time.process_time() - cpu_s, time.perf_counter() - wall_s
    looks = InferTeacherConfig(per_box=max(VIEWS), workers=1, threads=options.threads, device="cpu")
    run_stage(run, "infer-teacher", looks)
    return {"train_cpu_s": round(cpu_s, 1), "train_wall_s": round(wall_s, 1)}


def _semantic_masks(run: RunPaths) -> None:
    """Candidates of the shared folder's segmenter, those of classes that it does not know from colours."""
    model = f"onnx:{shared_folder() / 'weights' / SEGMENTER}"
    for _ in parse_step("infer-semantic", {"model": model, "workers": 1}).run(run, RunOptions()):
        pass


def _fused(run: RunPaths) -> dict[int, dict[str, Any]]:
    """Rows of `fuse`, by annotation, of all candidates that the run has."""
    run_stage(run, "fuse", FuseConfig(workers=1))
    rows = read_part(run.part("pseudo", 0, 1)).to_pylist()
    return {row["annotation_id"]: row for row in rows if row["status"] == "ok"}


def _rows(run: RunPaths) -> list[dict[str, Any]]:
    truth = json.loads((shared_folder() / "data" / "coco-dev" / "instances.json").read_text())
    sizes = {image["id"]: (image["height"], image["width"]) for image in truth["images"]}
    names = {category["id"]: category["name"] for category in truth["categories"]}
    looks: dict[int, list[Any]] = defaultdict(list)
    for row in read_part(run.part("candidates/teacher", 0, 1)).to_pylist():
        looks[row["annotation_id"]].append(soft_mask_from_struct(row["mask"]))
    fused = _fused(run)
    figures: dict[tuple[str, str], list[float]] = defaultdict(list)
    for one in truth["annotations"]:
        if one["iscrowd"]:
            continue
        size_hw = sizes[one["image_id"]]
        true_mask = decode(from_segmentation(one["segmentation"], size_hw))
        is_voc = names[one["category_id"]] in VOC and int(true_mask.sum()) >= MIN_AREA_PX
        by_setting = _ious(one["bbox"], true_mask, looks[one["id"]])
        by_setting["fused"] = rle_iou(fused[one["id"]]["segmentation"], encode(true_mask))
        for setting, iou in by_setting.items():
            for case in ("all", "voc32") if is_voc else ("all",):
                figures[setting, case].append(iou)
    return [_row(setting, case, np.array(values)) for (setting, case), values in figures.items()]


def _ious(bbox: list[float], true_mask: np.ndarray, looks: list[Any]) -> dict[str, float]:
    """IoU with the truth of the mean of the first candidates."""
    x, y, width, height = bbox
    window = pixel_window((x, y, x + width, y + height), (true_mask.shape[0], true_mask.shape[1]))
    rows = slice(int(window.y0), int(window.y0) + window.height)
    columns = slice(int(window.x0), int(window.x0) + window.width)
    inside, area = true_mask[rows, columns], int(true_mask.sum())
    planes = [resample(one.probability.astype(np.float32) / 255, one.grid, window) for one in looks]
    result = {}
    for count in VIEWS:
        mask = np.mean(planes[:count], axis=0) > 0.5
        overlap = int((mask & inside).sum())
        result[f"mal, {count} views"] = overlap / max(int(mask.sum()) + area - overlap, 1)
    return result


def _row(setting: str, case: str, iou: np.ndarray) -> dict[str, Any]:
    return {
        "setting": setting,
        "case": case,
        "mean_iou": round(float(iou.mean()), 4),
        "iou_over_50": round(float((iou >= 0.5).mean()), 4),
        "iou_over_75": round(float((iou >= 0.75).mean()), 4),
        "n": len(iou),
    }


if __name__ == "__main__":
    main()
