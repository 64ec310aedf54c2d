"""The teachers that detect, on coco-dev: trained on its boxes alone for some ten minutes of one core each.

Which is next to nothing for a detector: published trainings see a hundred times as many images for ten times as many
epochs. The rows say what such a teacher is worth where there is no more than that; what a box-conditioned one makes of
it stands in `coco_dev_mal`. Masks are those of `fuse`. `met` is the share of the boxes that a candidate meets, `own`
the share of the masks that are the network's, not the box itself. `full` learns from true masks.

    python tests/benchmarks/coco_dev_family.py --folder RUNS --out docs/results/coco_dev_family.json
"""

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from fusion_ablation import CASES, SEED, SEGMENTER, finished, fused_rows, measured
from harness import report, script_parser, shared_folder

from pseudolabel.datasets.coco_file import read_coco
from pseudolabel.metrics.objects import read_truth

METHODS = ("boxinst", "boxteacher", "boxseg", "full")
SMALL = {
    "backbone": "mobilenet_v2", "epochs": 14, "image_px": 512, "window_px": 320, "channels": 64, "convs": 2,
    "mask_branch_channels": 64, "precision": "bf16", "threads": 1, "device": "cpu",
}  # fmt: skip
Row = dict[str, Any]


def rows_of(folder: Path, methods: list[str]) -> Iterator[Row]:
    """Two rows per method: all objects, and those of VOC's classes of at least 1024 px."""
    data = shared_folder() / "data" / "coco-dev"
    truth_file = data / "instances.json"
    truth = read_truth(read_coco(truth_file))
    for method in methods:
        full = method == "full"
        taught = {"method": "boxinst", "supervision": "masks"} if full else {"method": method}
        given = truth_file if full else data / "boxes.json"
        sections = {
            "shard": {"images": str(data / "images"), "annotations": str(given), "shards": 1},
            "train-teacher": {
                **taught, "backbone_weights": str(shared_folder() / "weights" / SEGMENTER), **SMALL,
            },
            "infer-teacher": {"device": "cpu"},
        }  # fmt: skip
        start = time.process_time()
        run = finished(folder / method, sections)
        seconds = time.process_time() - start
        fused = fused_rows(run, {})
        met = sum(row["decision_reason"] != "no_candidate" for row in fused) / len(fused)
        own = sum(row["decision"] != "box_only" for row in fused) / len(fused)
        for case in ("all", "voc32"):
            shares = {"met": met, "own": own}
            figures = measured(fused, truth, CASES[case])
            yield {"method": method, "case": case, **shares, **figures, "cpu_s": round(seconds)}


def main() -> None:
    torch.set_num_threads(1)
    parser = script_parser(__doc__)
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--folder", type=Path, help="where the runs are made and kept")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        rows = list(rows_of(given.folder or Path(scratch), given.methods.split(",")))
    report("coco_dev_family", rows, on="coco-dev, 1302 boxes of 142 images", seeds=[SEED])


if __name__ == "__main__":
    main()
