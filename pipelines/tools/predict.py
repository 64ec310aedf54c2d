"""`predict`: a trained student on a folder of images, as COCO results and pictures."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pseudolabel.errors import InputError
from pseudolabel.files import atomic_path, write_text_atomically
from pseudolabel.pipelines.options.tools import PredictConfig
from pseudolabel.pipelines.work.device import resolve_device
from pseudolabel.pixel_rule import PixelRule
from pseudolabel.progress import tracked

if TYPE_CHECKING:
    from pseudolabel.students.base import Instances
    from pseudolabel.students.save import TrainedStudent


def predict(weights: Path, config: PredictConfig) -> dict[str, Any]:
    """Write `results.json` (COCO's results form), `images.json` (ids and names) and pictures; a summary with the AP.

    An image that cannot be read is listed in `images.json` with its reason, and counted.

    Raises:
        InputError: no image, or the weights or a COCO file are damaged.
    """
    import torch

    from pseudolabel.students.pictures import coco_rows
    from pseudolabel.students.save import load_student

    if config.threads:
        torch.set_num_threads(config.threads)
    trained = load_student(weights, device=resolve_device(config.device, stage_uses_gpu=True))
    if config.detections:
        trained.student.find_at_most(config.detections)
    if config.least_score < trained.student.config.least_score:
        trained.student.find_from(config.least_score)
    images = list(_images(config))
    if not images:
        raise InputError(f"{config.images}: no images to predict on")
    rows: list[dict[str, Any]] = []
    drawn = set(_drawn(len(images), config.pictures))
    for place, image in enumerate(tracked(images, "predict", unit="image")):
        found = _predicted(trained, image, config)
        if found is None:
            continue
        kept = [row for row in coco_rows(found, image["id"], trained.categories) if row["score"] >= config.least_score]
        rows += kept
        if place in drawn:
            _draw(trained, image, found, config)
    write_text_atomically(config.out / "results.json", json.dumps(rows))
    header = {"images": images, "categories": list(trained.categories)}
    write_text_atomically(config.out / "images.json", json.dumps(header, indent=1))
    rejected = sum("reason" in image for image in images)
    summary = {"stage": "predict", "images": len(images), "rejected": rejected, "instances": len(rows)}
    truth = config.ground_truth
    return summary | (
        {"figures": measure(rows, truth, trained.categories, detections=trained.student.config.detections)}
        if truth
        else {}
    )


def predict_text(summary: Mapping[str, Any]) -> str:
    """The summary for people."""
    line = f"predict: {summary['instances']} instances on {summary['images']} images, {summary['rejected']} unreadable"
    figures = summary.get("figures", {})
    return "\n".join([line, *(f"{name}: {value:.3f}" for name, value in figures.items() if value is not None)])


def measure(
    results: list[dict[str, Any]],
    ground_truth: Path,
    categories: Sequence[Mapping[str, Any]],
    *,
    detections: int = 100,
) -> dict[str, float | None]:
    """Mask AP of rows in COCO's results form, whose categories the file has under the same names; what of it is the
    masks', the boxes' and the classes' (`detection_figures`).

    Args:
        detections: how many masks of an image and class count.

    Raises:
        InputError: the file is damaged, or has none of the categories.
    """
    from pseudolabel.datasets.coco_file import read_coco
    from pseudolabel.metrics.categories import file_ids, renumbered
    from pseudolabel.metrics.coco_ap import mask_ap
    from pseudolabel.metrics.detection import detection_figures
    from pseudolabel.metrics.objects import read_truth
    from pseudolabel.students.pictures import as_predictions

    truth = read_truth(read_coco(ground_truth))
    known = [row for row in results if row["image_id"] in truth.sizes_hw]
    ids = file_ids(categories, truth.class_names, where=str(ground_truth))
    found = as_predictions(renumbered(known, ids))
    ap = mask_ap(truth.objects, found, detections=detections)
    names = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large")
    figures = {name: getattr(ap, name) for name in names}
    return figures | detection_figures(truth.objects, found, detections=detections)


def _images(config: PredictConfig) -> Iterator[dict[str, Any]]:
    """Id and name of every image, in order; ids are those of the annotations or the truth, where one is given."""
    from pseudolabel.datasets.coco_file import read_coco
    from pseudolabel.datasets.folder import FolderDataset

    listed = config.annotations or config.ground_truth
    if listed is not None:
        for row in read_coco(listed)["images"]:
            yield {"id": row["id"], "file_name": _file_name(row, listed)}
        return
    names = sorted(row["file_name"] for row in FolderDataset(config.images).rows())
    yield from ({"id": number, "file_name": name} for number, name in enumerate(names, start=1))


def _file_name(row: Mapping[str, Any], listed: Path) -> str:
    name = row.get("file_name")
    if not isinstance(name, str):
        raise InputError(f"{listed}: image {row['id']} has no file_name")
    return name


def _predicted(trained: "TrainedStudent", image: dict[str, Any], config: PredictConfig) -> "Instances | None":
    """The instances of an image; None, and a reason beside its name, where it cannot be read."""
    from pseudolabel.students.evaluation import read_pixels

    try:
        pixels = read_pixels(config.images, image["file_name"], PixelRule(exif=config.exif))
    except InputError as error:
        image["reason"] = str(error)
        return None
    return trained.student.predict([pixels], image_px=config.long_side or trained.image_px)[0]


def _draw(trained: "TrainedStudent", image: dict[str, Any], found: "Instances", config: PredictConfig) -> None:
    from PIL import Image

    from pseudolabel.students.evaluation import read_pixels
    from pseudolabel.students.pictures import instances_picture

    pixels = read_pixels(config.images, image["file_name"], PixelRule(exif=config.exif)).numpy().transpose(1, 2, 0)
    names = [row["name"] for row in trained.categories] if len(trained.categories) > 1 else [""]
    picture = instances_picture(pixels, found, names)
    with atomic_path(config.out / "pictures" / f"{image['id']}.png") as temporary:
        Image.fromarray(picture).save(temporary, format="PNG")


def _drawn(count: int, wanted: int) -> list[int]:
    from pseudolabel.report.overlay import even_places

    return even_places(count, wanted)
