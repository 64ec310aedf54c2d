"""`calibrate`: from a small audited set, what the scores of a run mean as expected mask IoU."""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pseudolabel.errors import InputError, QualityGateError
from pseudolabel.files import write_text_atomically
from pseudolabel.pipelines.options.tools import CalibrateConfig
from pseudolabel.pipelines.planning.plan import read_plan
from pseudolabel.pipelines.review.last_word import REVIEWED
from pseudolabel.pipelines.run.commit import read_footer, read_part
from pseudolabel.pipelines.run.fingerprint import file_sha256
from pseudolabel.pipelines.run.paths import RunPaths
from pseudolabel.pipelines.work.job import library_versions

Row = dict[str, Any]
_NOISE = 0.01


def calibrate(run: RunPaths, config: CalibrateConfig) -> Row:
    """Fits and saves a calibration, draws its reliability curve, and says how good it is on images it has not seen.

    Keys: `n, reviewed, images, spearman_before, spearman, ece_before, ece, risk_coverage_before, risk_coverage,
    risk_coverage_oracle, helps, threshold, run, calibration, picture, next`. `helps` says whether the audited masks
    moved the score at all, and not to a worse ranking or error. All figures after calibration are of five calibrations,
    each measured on the fifth of the images that it was not learned from; the one saved is learned from all.

    Raises:
        InputError: there are no pseudo labels, or too few of them are in the ground truth.
        QualityGateError: no score reaches the wanted precision.
    """
    from pseudolabel.fusion.calibration import fit_calibration, held_out_scores

    parts = _pseudo_parts(run)
    rows, ious, reviewed = _truths(run, parts, config)
    keep_order = config.ground_truth is None  # people look at doubtful masks, which do not stand for the others
    calibration = fit_calibration(rows, ious, provenance=_provenance(run, parts, config), keep_order=keep_order)
    held_out = held_out_scores(rows, ious, keep_order=keep_order)
    threshold = _threshold(held_out, ious, config)
    path = config.output or run.root / "calibration.json"
    write_text_atomically(path, calibration.to_json() + "\n")  # once nothing more can be refused
    picture = _draw(run, rows, held_out, ious)
    where = {"run": str(run.root), "calibration": str(path), "picture": str(picture)}
    figures = _figures(rows, held_out, ious) | {"reviewed": reviewed} | where
    return figures | {"threshold": threshold, "next": _advice(figures)}


def _truths(run: RunPaths, parts: Sequence[Path], config: CalibrateConfig) -> tuple[list[Row], Any, int]:
    """Rows with their true IoU, of the file and of reviews, and how many are of reviews."""
    import numpy as np

    from pseudolabel.formats.extras import own_ids
    from pseudolabel.pipelines.tools.reviewed_truth import reviewed_pairs

    pairs = list(reviewed_pairs(run)) if config.reviews else []
    rows, ious = [row for row, _ in pairs], np.array([iou for _, iou in pairs], dtype=np.float64)
    if config.ground_truth is None:
        if not rows:
            raise InputError("no true masks: give a COCO file by --ground-truth, or make some by  pseudolabel review")
        return rows, ious, len(rows)
    manifests = (read_part(run.part("manifest", shard, len(parts))) for shard in range(len(parts)))
    told, told_ious = audited(parts, config.ground_truth, own_ids(manifests))
    made = [place for place, row in enumerate(told) if row["decision_reason"] != REVIEWED]  # no answers for scores
    return [*rows, *(told[place] for place in made)], np.concatenate([ious, told_ious[made]]), len(rows)


def audited(parts: Sequence[Path], ground_truth: Path, own: Mapping[int, int]) -> tuple[list[Row], Any]:
    """The rows of masks whose object is in the ground truth, with their true IoU; a box that stands in is no mask.

    Args:
        parts: of the pseudo table.
        ground_truth: a COCO file with the ids of the run's source.
        own: those ids by the run's own, where the run numbered its annotations; see `own_ids`.

    Raises:
        InputError: the ground truth cannot be read.
    """
    import numpy as np

    from pseudolabel.datasets.coco_file import read_coco
    from pseudolabel.metrics.mask_iou import rle_iou
    from pseudolabel.metrics.objects import read_truth

    truth = read_truth(read_coco(ground_truth))
    true_masks = {one.annotation_id: one.mask for one in truth.objects if not one.is_crowd}
    known = ((row, true_masks.get(own.get(row["annotation_id"], row["annotation_id"]))) for row in _labels(parts))
    pairs = [(row, mask) for row, mask in known if mask is not None]
    rows, ious = [row for row, _ in pairs], [rle_iou(row["segmentation"], mask) for row, mask in pairs]
    return rows, np.array(ious, dtype=np.float64)


def format_calibration(figures: Mapping[str, Any]) -> str:
    """The figures for people."""
    of_reviews = f" ({figures['reviewed']} of reviews)" if figures["reviewed"] else ""
    lines = [
        f"{figures['n']} audited masks{of_reviews} in {figures['images']} images; "
        "after calibration on images not learned from",
        _line("rank correlation with IoU", figures["spearman_before"], figures["spearman"]),
        _line("expected calibration error", figures["ece_before"], figures["ece"]),
        _line("area under risk-coverage", figures["risk_coverage_before"], figures["risk_coverage"])
        + f" (oracle {figures['risk_coverage_oracle']:.3f})",
    ]
    threshold = figures["threshold"]
    if threshold is not None:
        lines.append(
            f"--keep-score {threshold['calibrated_iou']:.4f}: {threshold['precision']:.1%} of the {threshold['kept']} "
            f"kept masks (of {threshold['of']}) have IoU {threshold['at_iou']:g} or more"
        )
    return "\n".join(lines)


def _advice(figures: Mapping[str, Any]) -> str:
    """What to do now: use the calibration where it helps on images that it was not learned from."""
    if figures["helps"]:
        run, calibration = shlex.quote(figures["run"]), shlex.quote(figures["calibration"])
        return f"pseudolabel fuse {run} --calibration {calibration} --overwrite"
    return (
        f"these {figures['n']} masks do not improve the score, which stays as good without them: "
        f"audit about {2 * figures['n']} more, or go on without --calibration"
    )


def _line(what: str, before: float | None, after: float | None) -> str:
    before_text, after_text = ("-" if value is None else f"{value:.3f}" for value in (before, after))
    return f"{what:<28} {before_text} -> {after_text}"


def _pseudo_parts(run: RunPaths) -> list[Path]:
    num_shards = read_plan(run).num_shards
    parts = [run.part("pseudo", shard, num_shards) for shard in range(num_shards)]
    missing = [path for path in parts if not path.exists()]
    if missing:
        raise InputError(f"{missing[0]} is missing ({len(missing)} of {num_shards}); run  pseudolabel fuse {run.typed}")
    return parts


def _labels(parts: Sequence[Path]) -> Iterator[Row]:
    for part in parts:
        for row in read_part(part).to_pylist():
            if row["status"] == "ok" and row["evidence"] is not None and row["decision"] != "box_only":
                yield row


def _figures(rows: Sequence[Row], held_out: Any, ious: Any) -> Row:
    import numpy as np

    from pseudolabel.metrics import calibration as measure

    before = np.array([row["score"] for row in rows], dtype=np.float64)
    ranks = {"spearman_before": measure.spearman(before, ious), "spearman": measure.spearman(held_out, ious)}
    errors = {
        "ece_before": measure.expected_calibration_error(before, ious),
        "ece": measure.expected_calibration_error(held_out, ious),
    }
    return {
        "n": len(rows),
        "images": len({row["image_key"] for row in rows}),
        **ranks,
        **errors,
        "helps": _helps(ranks, errors),
        "risk_coverage_before": measure.risk_coverage_area(before, ious),
        "risk_coverage": measure.risk_coverage_area(held_out, ious),
        "risk_coverage_oracle": measure.oracle_risk_coverage_area(ious),
    }


def _helps(ranks: Mapping[str, float | None], errors: Mapping[str, float]) -> bool:
    """Whether held-out masks are ranked no worse, to within noise, and one of the two figures is better."""
    rank, rank_before = ranks["spearman"] or 0.0, ranks["spearman_before"] or 0.0
    gains = rank - rank_before, errors["ece_before"] - errors["ece"]
    return min(gains) > -_NOISE and max(gains) > 0


def _threshold(held_out: Any, ious: Any, config: CalibrateConfig) -> Row | None:
    from pseudolabel.fusion.calibration import threshold_for

    if config.target_precision is None:
        return None
    found = threshold_for(held_out, ious, target_precision=config.target_precision, at_iou=config.at_iou)
    if found is None:
        raise QualityGateError(
            f"no score reaches it: even of the best masks fewer than {config.target_precision:.0%} have "
            f"IoU {config.at_iou:g}; lower --target-precision or --at-iou"
        )
    return {
        "calibrated_iou": found.calibrated_iou,
        "precision": found.precision,
        "kept": found.kept,
        "of": found.of,
        "target_precision": config.target_precision,
        "at_iou": config.at_iou,
    }


def _provenance(run: RunPaths, parts: Sequence[Path], config: CalibrateConfig) -> Row:
    return {
        "ground_truth_sha256": file_sha256(config.ground_truth) if config.ground_truth else None,
        "reviews_sha256": file_sha256(run.reviews) if config.reviews and run.reviews.is_dir() else None,
        "pseudo_fingerprints": [read_footer(part).fingerprint for part in parts],
        "fuse": read_footer(parts[0]).config,
        "versions": library_versions(),
    }


def _draw(run: RunPaths, rows: Sequence[Row], held_out: Any, ious: Any) -> Path:
    """The reliability curve before and after, as a PNG."""
    import numpy as np
    from matplotlib.figure import Figure

    from pseudolabel.metrics.calibration import reliability_bins

    figure = Figure(figsize=(5, 5), layout="constrained")
    axes = figure.add_subplot(xlabel="score", ylabel="mean IoU with the true mask", xlim=(0, 1), ylim=(0, 1))
    axes.plot([0, 1], [0, 1], color="0.7", linewidth=1)
    before = np.array([row["score"] for row in rows], dtype=np.float64)
    for name, scores in (("score", before), ("calibrated, images not learned from", held_out)):
        bins = reliability_bins(scores, ious)
        axes.plot([b.mean_score for b in bins], [b.mean_iou for b in bins], marker="o", label=name)
    axes.legend(loc="upper left")
    path = run.pictures("calibrate") / "reliability.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120, metadata={"Software": None})
    return path
