"""`evaluate`: a run's masks against the truth, beside the boxes themselves."""

import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pseudolabel.errors import ConfigError, InputError, QualityGateError
from pseudolabel.pipelines.options.tools import EvaluateConfig
from pseudolabel.pipelines.run.paths import RunPaths
from pseudolabel.registry import did_you_mean

_SAME_BOX = 0.3  # IoU, also of boxes drawn loosely


def run_evaluation(run: RunPaths, config: EvaluateConfig) -> dict[str, Any]:
    """The figures of a run; see `evaluate`."""
    if run.root.is_file():
        measured = f"--predictions {run.typed} --ground-truth {shlex.quote(str(config.ground_truth))}"
        raise InputError(f"{run.root} is a file, no run folder; type  pseudolabel evaluate RUN {measured}")
    predictions = config.predictions or run.table("pseudo") / "instances.json"
    if not predictions.exists():
        raise InputError(f"{predictions} does not exist. Make it with  pseudolabel fuse {run.typed}")
    return evaluate(
        predictions,
        config.ground_truth,
        categories=tuple(config.categories),
        min_area_px=config.min_area,
        detections=config.detections,
        images=_sampled(run),
    )


def evaluate(
    run_or_instances: Path,
    ground_truth: Path,
    *,
    categories: tuple[str, ...] = (),
    min_area_px: int = 0,
    images: frozenset[int] | None = None,
    detections: int = 100,
) -> dict[str, Any]:
    """Mask IoU per true object and COCO's mask AP, all as plain JSON values.

    Keys: `n, mean_iou, mean_iou_interval, iou_over_50, iou_over_75, ap, ap50, ap75, spearman, ece, risk_coverage,
    risk_coverage_oracle, n_predictions, per_class, per_size, left_out`, in `baseline_box` the same for "the box is the
    mask" over the same objects, and in `baseline_ellipse` the IoU of the ellipses in the boxes. An object without a
    prediction of its annotation id has IoU 0. A file whose `info.pseudolabel.annotation_ids` is `made` shares no ids
    with the truth; then only AP is measured, images are matched by file name and categories by name, and
    `ap_any_class, box_ap, box_ap_any_class, class_right` stand beside it.

    Args:
        run_or_instances: a run folder, or a COCO file of masks with scores.
        ground_truth: a COCO file with polygons or RLE; its crowds are no objects.
        categories: class names that count, all where empty.
        min_area_px: least number of pixels of a true mask that counts.
        images: ids of the images that count; None takes all of the truth, or of a folder the images of its sample.
        detections: how many masks of an image and class count for AP.

    Raises:
        InputError: a file is missing or damaged, or the masks belong to other annotations than the truth's.
        ConfigError: a class name is unknown.
    """
    from pseudolabel.datasets.coco_file import read_coco

    path = run_or_instances
    if path.is_dir():
        images = _sampled(RunPaths(path)) if images is None else images
        path = RunPaths(path).table("pseudo") / "instances.json"
    return evaluate_content(
        read_coco(path),
        ground_truth,
        where=str(path),
        categories=categories,
        min_area_px=min_area_px,
        images=images,
        detections=detections,
    )


def evaluate_content(
    content: dict[str, Any],
    ground_truth: Path,
    *,
    where: str,
    categories: tuple[str, ...] = (),
    min_area_px: int = 0,
    images: frozenset[int] | None = None,
    detections: int = 100,
) -> dict[str, Any]:
    """The same of the content of a COCO file; `where` is its name in messages."""
    from pseudolabel.datasets.coco_file import read_coco
    from pseudolabel.metrics.comparison import Selection, compare
    from pseudolabel.metrics.objects import only_images, read_predictions, read_truth
    from pseudolabel.metrics.same_images import true_image_ids

    true_content = read_coco(ground_truth)
    truth = read_truth(true_content)
    if not truth.objects:
        why = ", ".join(f"{count} x {reason}" for reason, count in truth.left_out.items()) or "it has no annotations"
        raise InputError(f"{ground_truth}: not one true mask ({why}); --ground-truth takes the file that has the masks")
    _check_names(categories, truth.class_names.values())
    by_id = _shares_ids(content)
    if not by_id:
        theirs = true_image_ids(content["images"], true_content["images"], where=where, truth=str(ground_truth))
        images = None if images is None else frozenset(theirs[number] for number in images if number in theirs)
        content = _with_ids_of(content, truth.class_names, theirs, ground_truth)
    truth = truth if images is None else only_images(truth, images)
    predictions = read_predictions(content, truth, where=where)
    if by_id:
        _check_ids(predictions, truth, where, ground_truth)
    figures = compare(truth, predictions, Selection(categories, min_area_px, detections), by_id=by_id)
    return figures | {"left_out": dict(truth.left_out)}


def _sampled(run: RunPaths) -> frozenset[int] | None:
    """Ids of the images of a run that has a sample of its input, usable or not; None for any other run."""
    from pseudolabel.pipelines.planning.plan import PLAN_STAGE, read_plan
    from pseudolabel.pipelines.run.commit import read_part

    plan = read_plan(run) if run.plan.exists() else None
    if plan is None or plan.sample is None:
        return None
    parts = [run.part(PLAN_STAGE, shard, plan.num_shards) for shard in range(plan.num_shards)]
    return frozenset(number for part in parts for number in read_part(part, ["image_id"])["image_id"].to_pylist())


def _shares_ids(content: Mapping[str, Any]) -> bool:
    ours = (content.get("info") or {}).get("pseudolabel") or {}
    return bool(ours.get("annotation_ids") != "made")


def _with_ids_of(
    content: dict[str, Any], class_names: Mapping[int, str], images: Mapping[int, int], ground_truth: Path
) -> dict[str, Any]:
    """The content with the truth's ids of images and categories; without masks on images that the truth lacks.

    A run of bare images numbers its images itself, and has the categories of its segmenter.
    """
    from pseudolabel.metrics.categories import file_ids, renumbered

    ids = file_ids(content["categories"], class_names, where=str(ground_truth))
    rows = [{**row, "image_id": images[row["image_id"]]} for row in content["annotations"] if row["image_id"] in images]
    return {**content, "annotations": renumbered(rows, ids)}


def _check_ids(predictions: list[Any], truth: Any, where: str, ground_truth: Path) -> None:
    known = {(row.image_id, row.annotation_id): row.box_xywh for row in truth.objects}
    shared = [row for row in predictions if (row.image_id, row.annotation_id) in known]
    if predictions and not shared:
        raise InputError(
            f"{where}: none of its {len(predictions)} annotations has the id and image of one in {ground_truth}. "
            "Was the run made from another boxes file?"
        )
    boxes = [
        (row.source_box_xywh, known[row.image_id, row.annotation_id])
        for row in shared
        if row.source_box_xywh is not None
    ]
    met = _median_iou(boxes) if boxes else 1.0
    if met < _SAME_BOX:
        raise InputError(
            f"{where}: its annotations have ids of {ground_truth}, but not those boxes: the median IoU of {len(boxes)} "
            f"given boxes with the true ones is {met:.2f}. Was the run made from another boxes file?"
        )


def _median_iou(boxes_xywh: list[Any]) -> float:
    """Of pairs of boxes."""
    import numpy as np

    from pseudolabel.boxes import paired_iou, xywh_to_xyxy

    both = xywh_to_xyxy(np.array(boxes_xywh, dtype=np.float64))
    return float(np.median(paired_iou(both[:, 0], both[:, 1])))


def _check_names(categories: tuple[str, ...], known: Any) -> None:
    unknown = [name for name in categories if name not in set(known)]
    if unknown:
        raise ConfigError(f"no class is called {unknown[0]!r}{did_you_mean(unknown[0], known)}")


def check_quality(figures: Mapping[str, Any], config: EvaluateConfig) -> None:
    """Pass where the figures are as good as was asked for.

    Raises:
        QualityGateError: they are not.
    """
    if config.min_mean_iou is not None and figures["mean_iou"] < config.min_mean_iou:
        raise QualityGateError(f"mean IoU {figures['mean_iou']:.3f} is below --min-mean-iou {config.min_mean_iou:g}")


# --- for people ------------------------------------------------------------------------------------------------------

_COLUMNS = ("mean_iou", "iou_over_50", "iou_over_75", "ap", "ap50", "ap75")
_TITLES = ("objects", "mean IoU", "> 0.50", "> 0.75", "AP", "AP50", "AP75", "box: IoU", "box: AP")


def format_figures(figures: Mapping[str, Any]) -> str:
    """A table: all objects, each size, each class; to the right the same of the boxes themselves."""
    rows = [("", *_TITLES), *_body(figures)]
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    lines = ["  ".join(_aligned(cell, widths[place], place) for place, cell in enumerate(row)) for row in rows]
    return "\n".join([*(line.rstrip() for line in lines), *_below(figures)])


def _body(figures: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    box = figures["baseline_box"]
    yield _line("all", figures, box)
    for block in ("per_size", "per_class"):
        for name, own in figures[block].items():
            yield _line(name, own, box[block][name])


def _line(name: str, own: Mapping[str, Any], box: Mapping[str, Any]) -> tuple[str, ...]:
    cells = [_cell(own.get(column)) for column in _COLUMNS]
    return (name, str(own["n"]), *cells, _cell(box["mean_iou"]), _cell(box.get("ap")))


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _aligned(cell: str, width: int, place: int) -> str:
    return cell.ljust(width) if place == 0 else cell.rjust(width)


def _below(figures: Mapping[str, Any]) -> Iterator[str]:
    if figures["mean_iou_interval"]:
        low, high = figures["mean_iou_interval"]
        yield f"mean IoU {_cell(figures['mean_iou'])}, 95 % interval over images {low:.3f} to {high:.3f}"
    if figures["ece"] is not None:
        yield f"score and IoU: rank correlation {_cell(figures['spearman'])}, calibration error {figures['ece']:.3f}"
    if "class_right" in figures:
        yield (
            f"whatever the class: AP {_cell(figures['ap_any_class'])}, of boxes {_cell(figures['box_ap_any_class'])} "
            f"(with it {_cell(figures['box_ap'])}); right class of the objects found: {_cell(figures['class_right'])}"
        )
    yield f"an ellipse in each box would have mean IoU {_cell(figures['baseline_ellipse']['mean_iou'])}"
    for reason, count in figures["left_out"].items():
        yield f"left out of the truth: {count} x {reason}"
