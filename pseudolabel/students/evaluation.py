"""A student's mask AP on the images of a COCO file."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from pseudolabel.datasets.coco_file import read_coco
from pseudolabel.errors import InputError, RejectError
from pseudolabel.images import load_image
from pseudolabel.metrics.categories import file_ids, renumbered
from pseudolabel.metrics.coco_ap import MOST_DETECTIONS, MaskAp, mask_ap
from pseudolabel.metrics.objects import read_truth
from pseudolabel.pixel_rule import PixelRule
from pseudolabel.sources import ImagesRoot
from pseudolabel.students.base import Student
from pseudolabel.students.pictures import as_predictions, coco_rows
from pseudolabel.training.processes import as_in_first_process, gathered, share


def ap_on_file(
    truth: Path,
    images: ImagesRoot,
    categories: Sequence[Mapping[str, Any]],
    *,
    image_px: int,
    rule: PixelRule = PixelRule(),
) -> Callable[[Student], float]:
    """A function that measures a student's AP on the file's images, 0 where the file has no object of its classes.

    Raises:
        InputError: the file is damaged or has none of the classes; on the call, an image is damaged.
    """

    def measure(student: Student) -> float:
        most = student.config.detections
        ap = evaluate_student(student, truth, images, categories, image_px=image_px, detections=most, rule=rule)
        return ap.ap or 0.0

    file_ids(categories, read_truth(read_coco(truth)).class_names, where=str(truth))
    return measure


def evaluate_student(
    student: Student,
    truth: Path,
    images: ImagesRoot,
    categories: Sequence[Mapping[str, Any]],
    *,
    image_px: int | None,
    detections: int = MOST_DETECTIONS,
    rule: PixelRule = PixelRule(),
) -> MaskAp:
    """COCO's mask AP of a student in evaluation mode over every image of a file.

    Several processes of a training share the images; all of them have to call this, and all get the same AP.

    Args:
        categories: of the student, by place; they meet the file's as `file_ids` has it.
        detections: how many masks of an image and class count.
    """
    content = read_coco(truth)
    known = read_truth(content)
    as_in_first_process(student)
    rows: list[dict[str, Any]] = []
    for image in share(content["images"]):
        found = student.predict([read_pixels(images, image["file_name"], rule)], image_px=image_px)[0]
        rows += coco_rows(found, int(image["id"]), categories)
    ids = file_ids(categories, known.class_names, where=str(truth))
    everything = sorted(gathered(rows), key=lambda row: int(row["image_id"]))
    return mask_ap(known.objects, as_predictions(renumbered(everything, ids)), detections=detections)


def read_pixels(root: ImagesRoot, file_name: str, rule: PixelRule) -> torch.Tensor:
    """An image as (3, h, w) uint8.

    Raises:
        InputError: it cannot be read.
    """
    try:
        pixels = load_image(root, file_name, rule=rule)
    except RejectError as error:
        raise InputError(f"{root}: {file_name}: {error}") from None
    return torch.from_numpy(pixels.transpose(2, 0, 1).copy())
