"""What looks buy: a reviewer who knows the true masks answers our queue, and others one in random order.

    python tests/benchmarks/review.py RUN --ground-truth instances.json [--draws 32] [--out FILE.json]

RUN holds pseudo labels that nobody has answered about. A look leaves the fused mask where its IoU with the true one is
0.9 or more, else the best candidate of any source where that reaches 0.9, else a drawing, which is the true mask. After
0, 50, 100 and 200 looks, over all masks, looked at or not, the former with score 1: mean IoU, rank correlation of score
and IoU, and the area under the risk-coverage curve (mean error of the best-scored masks; less is better). Beside the
queues stands `true error`: those first that are furthest from the truth, which nobody can know.

`unseen_error` is the calibration error of the masks that nobody looked at, `unseen_error_calibrated` the same after
`calibrate` has learned from the answers. `spearman_free` is what the rank correlation were if `calibrate` moved all
weights by the answers, not level and spread alone.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from harness import report, script_parser
from jaxtyping import Float64

from pseudolabel.datasets.coco_file import read_coco
from pseudolabel.fusion.calibration import MIN_OBJECTS, fit_calibration
from pseudolabel.metrics.calibration import expected_calibration_error, risk_coverage_area, spearman
from pseudolabel.metrics.mask_iou import rle_iou
from pseudolabel.metrics.objects import read_truth
from pseudolabel.pipelines.planning.plan import read_plan
from pseudolabel.pipelines.review.queue import Queued, in_order, queued_objects
from pseudolabel.pipelines.review.scene import Scenes
from pseudolabel.pipelines.run.commit import read_part
from pseudolabel.pipelines.run.paths import RunPaths
from pseudolabel.pipelines.tools.reviewed_truth import PASSED_IOU

LOOKS = (0, 50, 100, 200)
GOOD = 0.9  # a person does not correct a better mask
KINDS = ("accepted", "taken", "drawn")

Row = dict[str, Any]


class Reviewer:
    """What a look at an object is worth, asked for those alone that somebody looks at."""

    def __init__(self, run: RunPaths, truth: Mapping[int, Any]) -> None:
        self._scenes, self._truth = Scenes(run), truth
        self._seen: dict[int, tuple[float, str, float]] = {}

    def look(self, one: Queued) -> tuple[float, str, float]:
        """The IoU of the mask that is left, which one that is, and its IoU with the fused one."""
        if one.annotation_id not in self._seen:
            masks = [choice.mask for choice in self._scenes.scene(one).choices]
            ious = [rle_iou(mask, self._truth[one.annotation_id]) for mask in masks]
            best = 0 if ious[0] >= GOOD else int(np.argmax(ious))
            left = (ious[best], "taken" if best else "accepted", rle_iou(masks[0], masks[best]))
            self._seen[one.annotation_id] = left if ious[best] >= GOOD else (1.0, "drawn", ious[0])
        return self._seen[one.annotation_id]


class Masks:
    """All masks of a run that have a true one: their rows, their IoU, and what a reviewer makes of them."""

    def __init__(self, run: RunPaths, truth: Mapping[int, Any]) -> None:
        parts = sorted(run.table("pseudo").glob("*.parquet"))
        rows = {row["annotation_id"]: row for part in parts for row in read_part(part).to_pylist()}
        self.objects = [one for one in queued_objects(run) if one.annotation_id in truth]
        self.rows = [rows[one.annotation_id] for one in self.objects]
        pairs = zip(self.rows, self.objects, strict=True)
        self.ious = np.array([rle_iou(row["segmentation"], truth[one.annotation_id]) for row, one in pairs])
        self.scores = np.array([one.score for one in self.objects])
        self._place = {one.annotation_id: place for place, one in enumerate(self.objects)}
        self._reviewer = Reviewer(run, truth)

    def figures(self, queue: Sequence[Queued]) -> list[Row]:
        """A row after each number of looks."""
        return [self._after([self._place[one.annotation_id] for one in queue[:looks]]) for looks in LOOKS]

    def _after(self, seen: Sequence[int]) -> Row:
        """The figures when the objects at these places have been looked at."""
        answers = [self._reviewer.look(self.objects[place]) for place in seen]
        now, unseen = self.ious.copy(), np.ones(len(self.ious), dtype=np.bool_)
        now[list(seen)], unseen[list(seen)] = [iou for iou, _, _ in answers], False
        scores = np.where(unseen, self.scores, 1.0)
        row: Row = {
            "looks": len(seen),
            "mean_iou": float(now.mean()),
            "spearman": spearman(scores, now),
            "risk_coverage": risk_coverage_area(scores, now),
            "unseen_error": expected_calibration_error(self.scores[unseen], self.ious[unseen]),
        }
        if answers:
            kept, free = (self._calibrated(seen, answers, keep_order=keep) for keep in (True, False))
            row["unseen_error_calibrated"] = expected_calibration_error(kept[unseen], self.ious[unseen])
            row["spearman_free"] = spearman(np.where(unseen, free, 1.0), now)
        return row | {kind: sum(one == kind for _, one, _ in answers) for kind in KINDS}

    def _calibrated(
        self, seen: Sequence[int], answers: Sequence[tuple[float, str, float]], *, keep_order: bool
    ) -> Float64[np.ndarray, " n"]:
        """All scores by what `calibrate` learns from the answers; as they were where it refuses so few."""
        known = [place for place in range(len(seen)) if self.rows[seen[place]]["decision"] != "box_only"]
        rows = [self.rows[seen[place]] for place in known]
        ious = np.array([min(answers[place][2], PASSED_IOU) for place in known])
        if len(known) < MIN_OBJECTS:  # the others have a box for a mask
            return self.scores
        return np.array(fit_calibration(rows, ious, keep_order=keep_order).expected_iou(self.rows))


def mean_rows(several: Sequence[Sequence[Mapping[str, Any]]]) -> list[Row]:
    """The mean of the rows of several queues, with the standard error of the mean of the two main figures."""
    rows = []
    for alike in zip(*several, strict=True):
        values = {key: np.array([one[key] for one in alike]) for key in alike[0]}
        errors = {f"se_{key}": float(np.std(values[key]) / len(alike) ** 0.5) for key in ("mean_iou", "spearman")}
        rows.append({key: float(value.mean()) for key, value in values.items()} | errors)
    return rows


def main() -> None:
    parser = script_parser(__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--ground-truth", type=Path, required=True)
    parser.add_argument("--draws", type=int, default=32, help="seeds of each queue that is drawn")
    given = parser.parse_args()
    run = RunPaths(given.run)
    masks = Masks(run, {one.annotation_id: one.mask for one in read_truth(read_coco(given.ground_truth)).objects})
    objects, seeds = masks.objects, list(range(given.draws))
    queues: dict[str, list[list[Queued]]] = {
        "drawn": [in_order(objects, seed=seed) for seed in seeds],
        "random": [[objects[i] for i in np.random.default_rng(seed).permutation(len(objects))] for seed in seeds],
        "worst": [in_order(objects, order="worst")],
        "true error": [[objects[i] for i in np.argsort(masks.ious, kind="stable")]],
    }
    rows = [
        {"queue": name, "objects": len(objects), **row}
        for name, several in queues.items()
        for row in mean_rows([masks.figures(queue) for queue in several])
    ]
    report("review", rows, on=read_plan(run).source.rsplit("/", 1)[-1], seeds=seeds)


if __name__ == "__main__":
    main()
