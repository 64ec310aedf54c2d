"""`predict`: a trained student on a folder of images, as COCO results and pictures."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pseudolabel.errors import InputError
from pseudolabel.files import atomic_path, write_text_atomically
from pseudolabel.pipelines.options.tools import PredictConfig
from pseudolabel.pipelines.work.device import resolve_device
from pseudolabel.pixel_rule import PixelRule
from pseudolabel.progress import tracked

if TYPE_CHECKING:
    from pseudolabel.metrics.truth_file import TruthFile
    from pseudolabel.students.base import Instances
    from pseudolabel.students.save import TrainedStudent


def predict(weights: Path, config: PredictConfig) -> dict[str, Any]:
    """Write `results.json` (COCO's results form), `images.json` (ids and names) and pictures; a summary with the AP.

    An image that cannot be read is listed in `images.json` with its reason, and counted. Pixels are read as those of
    the student's training: stretch, channels and page are those of its run.

    Raises:
        InputError: no image, not one that can be read, or the weights or a COCO file are damaged; a truth without a
            mask of the student's classes on these images, or of other sizes.
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
    truth = _truth(trained, images, config)
    rows: list[dict[str, Any]] = []
    drawn = set(_drawn(len(images), config.pictures))
    for place, image in enumerate(tracked(images, "predict", unit="image")):
        found = _predicted(trained, image, config)
        if found is None:
            continue
        if truth is not None:
            truth.check_size(image["id"], (found.masks.shape[1], found.masks.shape[2]))
        kept = [row for row in coco_rows(found, image["id"], trained.categories) if row["score"] >= config.least_score]
        rows += kept
        if place in drawn:
            _draw(trained, image, found, config)
    reasons = [image["reason"] for image in images if "reason" in image]
    if len(reasons) == len(images):
        raise InputError(f"not one of {len(images)} images can be read: {reasons[0]}")
    write_text_atomically(config.out / "results.json", json.dumps(rows))
    header = {"images": images, "categories": list(trained.categories)}
    write_text_atomically(config.out / "images.json", json.dumps(header, indent=1))
    summary = {"stage": "predict", "images": len(images), "rejected": len(reasons), "instances": len(rows)}
    summary |= {"example": reasons[0]} if reasons else {}
    return summary | ({"figures": measure(rows, truth, detections=trained.student.config.detections)} if truth else {})


def predict_text(summary: Mapping[str, Any]) -> str:
    """The summary for people."""
    line = f"predict: {summary['instances']} instances on {summary['images']} images, {summary['rejected']} unreadable"
    line += f", such as {summary['example']}" if "example" in summary else ""
    figures = summary.get("figures", {})
    return "\n".join([line, *(f"{name}: {value:.3f}" for name, value in figures.items() if value is not None)])


def measure(results: list[dict[str, Any]], truth: "TruthFile", *, detections: int = 100) -> dict[str, float | None]:
    """Mask AP of rows in COCO's results form, whose categories the file has under the same names; what of it is the
    masks', the boxes' and the classes' (`detection_figures`).

    Args:
        detections: how many masks of an image and class count.
    """
    from pseudolabel.metrics.categories import renumbered
    from pseudolabel.metrics.coco_ap import mask_ap
    from pseudolabel.metrics.detection import detection_figures
    from pseudolabel.students.pictures import as_predictions

    objects = truth.truth.objects
    known = [row for row in results if row["image_id"] in truth.truth.sizes_hw]
    found = as_predictions(renumbered(known, truth.ids))
    ap = mask_ap(objects, found, detections=detections)
    names = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large")
    figures = {name: getattr(ap, name) for name in names}
    return figures | detection_figures(objects, found, detections=detections)


def _truth(trained: "TrainedStudent", images: Sequence[Mapping[str, Any]], config: PredictConfig) -> "TruthFile | None":
    """The true masks on these images, looked at before the first of them is."""
    from pseudolabel.metrics.truth_file import read_truth_file

    if config.ground_truth is None:
        return None
    return read_truth_file(config.ground_truth, trained.categories).on(image["id"] for image in images)


def _images(config: PredictConfig) -> Iterator[dict[str, Any]]:
    """Id and name of every image, in order; ids are those of the annotations or the truth, where one is given."""
    from pseudolabel.datasets.coco_file import read_coco
    from pseudolabel.datasets.folder import FolderDataset
    from pseudolabel.metrics.truth_file import file_name

    listed = config.annotations or config.ground_truth
    if listed is not None:
        for row in read_coco(listed)["images"]:
            yield {"id": row["id"], "file_name": file_name(row, listed)}
        return
    names = sorted(row["file_name"] for row in FolderDataset(config.images).rows())
    yield from ({"id": number, "file_name": name} for number, name in enumerate(names, start=1))


def _predicted(trained: "TrainedStudent", image: dict[str, Any], config: PredictConfig) -> "Instances | None":
    """The instances of an image; None, and a reason beside its name, where it cannot be read."""
    from pseudolabel.students.evaluation import read_pixels

    try:
        pixels = read_pixels(config.images, image["file_name"], _rule(trained, config))
    except InputError as error:
        image["reason"] = str(error)
        return None
    return trained.student.predict([pixels], image_px=config.long_side or trained.image_px)[0]


def _rule(trained: "TrainedStudent", config: PredictConfig) -> PixelRule:
    return replace(trained.rule, exif=config.exif)


def _draw(trained: "TrainedStudent", image: dict[str, Any], found: "Instances", config: PredictConfig) -> None:
    from PIL import Image

    from pseudolabel.students.evaluation import read_pixels
    from pseudolabel.students.pictures import instances_picture

    pixels = read_pixels(config.images, image["file_name"], _rule(trained, config)).numpy().transpose(1, 2, 0)
    names = [row["name"] for row in trained.categories] if len(trained.categories) > 1 else [""]
    picture = instances_picture(pixels, found, names)
    with atomic_path(config.out / "pictures" / f"{image['id']}.png") as temporary:
        Image.fromarray(picture).save(temporary, format="PNG")


def _drawn(count: int, wanted: int) -> list[int]:
    from pseudolabel.report.overlay import even_places

    return even_places(count, wanted)
