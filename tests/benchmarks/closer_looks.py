"""Closer looks of a segmenter: what they cost and bring on coco-dev, as they are, at full size, and not at all.

`now` enlarges a look by its room and looks at nothing twice; `all as large as an image` is every look at the size of a
whole image; `none` is the whole image alone. Masks are those of `fuse` from the segmenter alone, of the objects of its
20 classes; `even` and `odd` are the halves of the set by image id, `cpu_s` that of the whole stage.

    python tests/benchmarks/closer_looks.py --out docs/results/closer_looks.json      # about five minutes of one core
"""

import tempfile
import time
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from fusion_ablation import CASES, SEGMENTER, fused_rows, predictions_of, selected
from harness import report, script_parser, shared_folder

from pseudolabel.datasets.coco_file import read_coco
from pseudolabel.metrics.mask_iou import object_ious
from pseudolabel.metrics.objects import read_truth
from pseudolabel.pipelines.engines.base import EngineOptions
from pseudolabel.pipelines.planning.make_plan import PlanConfig, make_plan
from pseudolabel.pipelines.run.paths import RunPaths
from pseudolabel.pipelines.runner import RunOptions, run_stage
from pseudolabel.pipelines.stage import StageConfig
from pseudolabel.pipelines.steps import parse_step
from pseudolabel.segmenters.zoom import enlargement

SETTINGS: dict[str, tuple[dict[str, Any], float | None]] = {
    "now": ({}, None),
    "all as large as an image": ({}, np.inf),
    "none": ({"zoom": False}, None),
}
INLINE = RunOptions(EngineOptions("inline"))  # in this process, where the enlargement can be changed


def row_of(folder: Path, setting: str) -> dict[str, Any]:
    """One setting's seconds, and its masks beside the true ones."""
    data, (options, enlarged) = shared_folder() / "data" / "coco-dev", SETTINGS[setting]
    run = RunPaths(folder / setting.replace(" ", "-"))
    make_plan(run, PlanConfig(images=str(data / "images"), annotations=data / "boxes.json", shards=1))
    run_stage(run, "shard", StageConfig(workers=1), INLINE)
    asked = {"model": f"onnx:{shared_folder() / 'weights' / SEGMENTER}", **options, "workers": 1, "device": "cpu"}
    start = time.process_time()
    with patch("pseudolabel.segmenters.closer_looks.enlargement", lambda room: enlarged or enlargement(room)):
        for _ in parse_step("infer-semantic", asked).run(run, INLINE):
            pass
    seconds = time.process_time() - start
    truth = read_truth(read_coco(data / "instances.json"))
    objects = selected(truth, CASES["voc"])
    ious = object_ious(objects, predictions_of(fused_rows(run, {}), truth))
    is_odd = np.array([one.image_id % 2 for one in objects], dtype=bool)
    halves = {"mean_iou": ious, "even": ious[~is_odd], "odd": ious[is_odd]}
    return {"setting": setting, "n": len(objects), **{k: float(v.mean()) for k, v in halves.items()}, "cpu_s": seconds}


def main() -> None:
    torch.set_num_threads(1)
    script_parser(__doc__).parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        rows = [row_of(Path(scratch), setting) for setting in SETTINGS]
    report("closer_looks", rows, on="coco-dev, VOC classes, 142 images", seeds=[0])


if __name__ == "__main__":
    main()
