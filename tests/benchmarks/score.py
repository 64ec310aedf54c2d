"""The score that ships with the package: fitted, and judged on the data sets that it was not fitted on.

    python tests/benchmarks/score.py coco=RUN:instances.json nuclei=RUN:instances.json drawn=RUN:instances.json \
        [--fit pseudolabel/fusion/score.json] [--out docs/results/score.json]

A run is one of `pseudolabel shard` with tables of candidates; every table alone and all together are fused, and rows
are compared with the true masks. Each data set is scored by a model of the others alone; so are the chances from which
decisions follow. `--fit` writes the model of all. Audits are simulated: 40 images of a set are looked at, the rest is
measured, over several draws.
"""

import functools
import multiprocessing
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from harness import report, script_parser
from jaxtyping import Float64
from scipy.optimize import isotonic_regression

from pseudolabel.datasets.coco_file import read_coco
from pseudolabel.fusion.calibration import fit_calibration
from pseudolabel.fusion.decisions import GOOD_IOU, TARGET_PRECISION, limits_for
from pseudolabel.fusion.features import feature_matrix
from pseudolabel.fusion.score_model import Chances, ScoreModel, fit_weights
from pseudolabel.metrics.calibration import expected_calibration_error, spearman
from pseudolabel.metrics.mask_iou import rle_iou
from pseudolabel.metrics.objects import read_truth
from pseudolabel.pipelines.options.stages.fuse import FuseConfig
from pseudolabel.pipelines.planning.plan import read_plan
from pseudolabel.pipelines.run.commit import read_part
from pseudolabel.pipelines.run.paths import RunPaths
from pseudolabel.pipelines.stage import Shard
from pseudolabel.pipelines.stages.fuse import FuseStage

STRENGTH = 3.0  # of the pull to no weight at all, in objects' worth, of which every set has a thousand
OBJECTS = 1000.0
KNOTS = 41
IOUS = [0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95]
AUDITED, DRAWS = 40, 5

_PARTS = ("box_quality", "pixel_quality", "expected_iou")

Row = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """One run fused from some of its tables."""

    data: str
    sources: str
    rows: list[Row]
    iou: Float64[np.ndarray, " n"]


def main() -> None:
    parser = script_parser(__doc__)
    parser.add_argument("runs", nargs="+", help="NAME=RUN:TRUTH")
    parser.add_argument("--fit", type=Path, help="write the model of all sets here")
    given = parser.parse_args()
    cases = [case for named in given.runs for case in _cases(named)]
    rows = []
    for name in dict.fromkeys(case.data for case in cases):
        others = [case for case in cases if case.data != name]
        model = replace(fitted(others), chances=chances(others))
        rows += [_figures(case, model) for case in cases if case.data == name]
    if given.fit:
        given.fit.write_text(_shipped(cases).to_json() + "\n")
    report("score", rows, on="each set by a model of the others", seeds=list(range(DRAWS)))


def _shipped(cases: Sequence[Case]) -> ScoreModel:
    worst = hardest(cases)
    told = {
        "cases": [{"set": case.data, "sources": case.sources, "objects": len(case.iou)} for case in cases],
        "chances": f"{worst.data}, {worst.sources}",
        "strength": STRENGTH,
        "script": "tests/benchmarks/score.py",
    }
    return replace(fitted(cases), chances=chances(cases), provenance=told)


def fitted(cases: Sequence[Case]) -> ScoreModel:
    """A model of several cases, of which every data set has the same say."""
    matrix = np.concatenate([feature_matrix(case.rows) for case in cases])
    iou = np.concatenate([case.iou for case in cases])
    counts = np.concatenate([np.full(len(case.iou), _weight(case, cases)) for case in cases])
    mean = np.average(np.nan_to_num(matrix), axis=0, weights=counts)
    matrix = np.where(np.isnan(matrix), mean, matrix)
    scale = np.sqrt(np.average((matrix - mean) ** 2, axis=0, weights=counts)) + 1e-9
    pull = np.full(matrix.shape[1] + 1, STRENGTH)
    pull[0] = 0
    weights = fit_weights((matrix - mean) / scale, iou, towards=np.zeros(len(pull)), strength=pull, counts=counts)
    nothing = Chances([0.0, 1.0], [0.0, 1.0], [[1.0, 1.0], [0.0, 1.0]])
    return ScoreModel(mean.tolist(), scale.tolist(), weights[1:].tolist(), float(weights[0]), nothing)


def _weight(case: Case, cases: Sequence[Case]) -> float:
    beside = sum(other.data == case.data for other in cases)
    return OBJECTS / len(case.iou) / beside


def hardest(cases: Sequence[Case]) -> Case:
    """The case with the lowest mean IoU."""
    return min(cases, key=lambda case: float(case.iou.mean()))


def chances(cases: Sequence[Case]) -> Chances:
    """How likely a mask of a score is to be good in the hardest case, so that elsewhere the target is rather exceeded.

    Each half of that case's images is scored by a model of its set's other half and of all other sets.
    """
    worst = hardest(cases)
    scores, ious = [], []
    for half in (0, 1):
        learned = fitted([case if case.data != worst.data else _half(case, 1 - half) for case in cases])
        mine = _half(worst, half)
        scores.append(np.array(learned.expected_iou(mine.rows)))
        ious.append(mine.iou)
    score, iou = np.concatenate(scores), np.concatenate(ious)
    order = np.argsort(score)
    ranks = np.arange(1, len(score) + 1) / len(score)
    knots = np.interp((np.arange(KNOTS) + 0.5) / KNOTS, ranks, score[order])
    rising = [isotonic_regression(iou[order] >= least).x for least in IOUS]
    shares = [np.interp(knots, score[order], share) for share in rising]
    return Chances(knots.tolist(), IOUS, np.minimum.accumulate(shares, axis=0).tolist())


def _half(case: Case, half: int) -> Case:
    images = sorted({row["image_key"] for row in case.rows})
    mine = np.isin([row["image_key"] for row in case.rows], images[half::2])
    return Case(case.data, case.sources, [row for row, one in zip(case.rows, mine, strict=True) if one], case.iou[mine])


def _figures(case: Case, model: ScoreModel) -> Row:
    """What a model says of a case that it has not seen, and the papers' score and that of the mask alone beside it."""
    score = np.array(model.expected_iou(case.rows))
    limits = limits_for(model.chances, target=TARGET_PRECISION, at_iou=GOOD_IOU)
    kept, bad = score >= limits.keep, case.iou < 0.5
    lowest = np.argsort(score, kind="stable")[: len(score) // 5]
    thin = np.array([row["evidence"]["fill"] < 0.35 for row in case.rows])
    box, pixel, own = (np.array([row[name] for row in case.rows]) for name in _PARTS)
    return {
        "set": case.data,
        "sources": case.sources,
        "n": len(score),
        "mean_iou": float(case.iou.mean()),
        "mean_score": float(score.mean()),
        "rank": spearman(score, case.iou),
        "rank_mqs": spearman(np.sqrt(box * pixel), case.iou),
        "rank_expected": spearman(np.sqrt(pixel * own), case.iou),
        "ece": expected_calibration_error(score, case.iou),
        "ece_mqs": expected_calibration_error(np.sqrt(box * pixel), case.iou),
        "ece_expected": expected_calibration_error(np.sqrt(pixel * own), case.iou),
        "caught": float(bad[lowest].sum() / max(bad.sum(), 1)),
        "kept": float(kept.mean()),
        "kept_good": float((case.iou[kept] >= GOOD_IOU).mean()) if kept.any() else None,
        "good_told": float(model.chances.of(score[kept], GOOD_IOU).mean()) if kept.any() else None,
        "thin": float(thin.mean()),
        "thin_score_less_iou": float((score - case.iou)[thin].mean()) if thin.any() else None,
        **_audited(case, model),
    }


def _audited(case: Case, model: ScoreModel) -> Row:
    """Figures after audits of some images, on the other ones; means over the draws."""
    images = sorted({row["image_key"] for row in case.rows})
    audited = min(AUDITED, len(images) // 2)
    error, rank = [], []
    for seed in range(DRAWS):
        chosen = set(np.random.default_rng(seed).permutation(images)[:audited].tolist())
        seen = np.array([row["image_key"] in chosen for row in case.rows])
        mine = [row for row, one in zip(case.rows, seen, strict=True) if one]
        rest = [row for row, one in zip(case.rows, seen, strict=True) if not one]
        learned = fit_calibration(mine, case.iou[seen], prior=model)
        score = np.array(learned.expected_iou(rest))
        error.append(expected_calibration_error(score, case.iou[~seen]))
        rank.append(spearman(score, case.iou[~seen]) or 0.0)
    return {"audited_images": audited, "audited_error": float(np.mean(error)), "audited_rank": float(np.mean(rank))}


def _cases(named: str) -> list[Case]:
    name, place = named.split("=", 1)
    root, truth_file = place.rsplit(":", 1)
    run = RunPaths(Path(root))
    tables = [table.split("/", 1)[1] for table in run.candidate_tables()]
    chosen = [[one] for one in tables] + ([tables] if len(tables) > 1 else [])
    return [_case(name, run, Path(truth_file), sources) for sources in chosen]


def _case(name: str, run: RunPaths, truth_file: Path, sources: list[str]) -> Case:
    truth = {one.annotation_id: one.mask for one in read_truth(read_coco(truth_file)).objects if not one.is_crowd}
    work = functools.partial(_rows, run, sources)
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        rows = [row for part in pool.imap(work, range(read_plan(run).num_shards)) for row in part]
    rows = [row for row in rows if row["annotation_id"] in truth and row["evidence"] is not None]
    iou = [rle_iou(row["segmentation"], truth[row["annotation_id"]]) for row in rows]
    return Case(name, "+".join(sources), rows, np.array(iou, dtype=np.float64))


def _rows(run: RunPaths, sources: list[str], shard: int) -> list[Row]:
    """One shard fused, without a mask that is replaced by its box, and without the score that is to be learned."""
    plan = read_plan(run)
    stage = FuseStage(FuseConfig(sources=sources, score="consensus", review_score=0.0, keep_score=0.0), run)
    stage.setup("cpu")
    inputs = {table: read_part(run.part(table, shard, plan.num_shards)) for table in stage.reads()}
    place = Shard(shard, plan.num_shards, plan.images_root, *_pixel_rule(plan))
    rows: list[Row] = stage.run(place, inputs).to_pylist()
    return [row for row in rows if row["status"] == "ok" and not row["iscrowd"]]


def _pixel_rule(plan: Any) -> tuple[Any, ...]:
    rule = plan.pixel_rule
    return (rule.exif, rule.stretch, rule.channels, rule.page)


if __name__ == "__main__":
    main()
