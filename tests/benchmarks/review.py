"""What looks buy: a reviewer who knows the true masks answers our queue, and others one in random order.

    python tests/benchmarks/review.py RUN --ground-truth instances.json [--draws 8] [--out FILE.json]

RUN holds pseudo labels that nobody has answered about. A look leaves the fused mask where its IoU with the true one is
0.9 or more, else the best candidate of any source where that reaches 0.9, else a drawing, which is the true mask. After
0, 50, 100 and 200 looks, over all masks, looked at or not, the former with score 1: mean IoU, rank correlation of score
and IoU, and the area under the risk-coverage curve (mean error of the best-scored masks; less is better). Beside the
queues stands `true error`: those first that are furthest from the truth, which nobody can know.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from harness import report, script_parser

from pseudolabel.datasets.coco_file import read_coco
from pseudolabel.metrics.calibration import risk_coverage_area, spearman
from pseudolabel.metrics.mask_iou import rle_iou
from pseudolabel.metrics.objects import read_truth
from pseudolabel.pipelines.planning.plan import read_plan
from pseudolabel.pipelines.review.queue import Queued, in_order, queued_objects
from pseudolabel.pipelines.review.scene import Scenes
from pseudolabel.pipelines.run.paths import RunPaths

LOOKS = (0, 50, 100, 200)
GOOD = 0.9  # a person does not correct a better mask


class Reviewer:
    """What a look at an object is worth, asked for those alone that somebody looks at."""

    def __init__(self, run: RunPaths, truth: Mapping[int, Any]) -> None:
        self._scenes, self._truth = Scenes(run), truth
        self._seen: dict[int, tuple[float, str]] = {}

    def look(self, one: Queued) -> tuple[float, str]:
        """The IoU of the mask that is left, and which one that is."""
        if one.annotation_id not in self._seen:
            choices = self._scenes.scene(one).choices
            ious = [rle_iou(choice.mask, self._truth[one.annotation_id]) for choice in choices]
            best = int(np.argmax(ious))
            place = 0 if ious[0] >= GOOD else best
            found = (ious[place], "accepted" if place == 0 else "taken") if ious[place] >= GOOD else (1.0, "drawn")
            self._seen[one.annotation_id] = found
        return self._seen[one.annotation_id]


def figures(queue: Sequence[Queued], ious: Mapping[int, float], reviewer: Reviewer) -> list[dict[str, Any]]:
    """A row after each number of looks."""
    now = {one.annotation_id: ious[one.annotation_id] for one in queue}
    scores = {one.annotation_id: one.score for one in queue}
    rows: list[dict[str, Any]] = []
    kinds = {"accepted": 0, "taken": 0, "drawn": 0}
    for looks in range(max(LOOKS) + 1):
        if looks in LOOKS:
            values = np.array([now[one.annotation_id] for one in queue])
            of = np.array([scores[one.annotation_id] for one in queue])
            row: dict[str, Any] = {"looks": looks, "mean_iou": float(values.mean()), "spearman": spearman(of, values)}
            row["risk_coverage"] = risk_coverage_area(of, values)
            rows.append(row | kinds)
        if looks < len(queue):
            iou, kind = reviewer.look(queue[looks])
            now[queue[looks].annotation_id], scores[queue[looks].annotation_id] = iou, 1.0
            kinds[kind] += 1
    return rows


def mean_rows(several: Sequence[Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """The mean of the rows of several queues, with the standard deviation of the figures."""
    rows = []
    for alike in zip(*several, strict=True):
        row = {key: float(np.mean([one[key] for one in alike])) for key in alike[0]}
        rows.append(row | {f"sd_{key}": float(np.std([one[key] for one in alike])) for key in ("mean_iou", "spearman")})
    return rows


def main() -> None:
    parser = script_parser(__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--ground-truth", type=Path, required=True)
    parser.add_argument("--draws", type=int, default=8, help="seeds of each queue that is drawn")
    given = parser.parse_args()
    run = RunPaths(given.run)
    truth = {one.annotation_id: one.mask for one in read_truth(read_coco(given.ground_truth)).objects}
    objects = [one for one in queued_objects(run) if one.annotation_id in truth]
    ious = fused_ious(run, truth)
    reviewer, seeds = Reviewer(run, truth), list(range(given.draws))
    queues: dict[str, list[list[Queued]]] = {
        "drawn": [in_order(objects, seed=seed) for seed in seeds],
        "random": [[objects[i] for i in np.random.default_rng(seed).permutation(len(objects))] for seed in seeds],
        "worst": [in_order(objects, order="worst")],
        "true error": [sorted(objects, key=lambda one: ious[one.annotation_id])],
    }
    rows = [
        {"queue": name, "objects": len(objects), **row}
        for name, several in queues.items()
        for row in mean_rows([figures(queue, ious, reviewer) for queue in several])
    ]
    report("review", rows, on=read_plan(run).source.rsplit("/", 1)[-1], seeds=seeds)


def fused_ious(run: RunPaths, truth: Mapping[int, Any]) -> dict[int, float]:
    """The IoU of every fused mask with the true one, by annotation id."""
    content = read_coco(run.table("pseudo") / "instances.json")
    return {
        row["id"]: rle_iou(row["segmentation"], truth[row["id"]])
        for row in content["annotations"]
        if row["id"] in truth
    }


if __name__ == "__main__":
    main()
