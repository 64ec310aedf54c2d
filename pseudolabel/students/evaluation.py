"""A student's mask AP on the images of a COCO file."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from pseudolabel.errors import InputError, RejectError
from pseudolabel.images import load_image, read_file, read_header
from pseudolabel.metrics.categories import renumbered
from pseudolabel.metrics.coco_ap import MOST_DETECTIONS, MaskAp, mask_ap
from pseudolabel.metrics.truth_file import file_name, read_truth_file
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
    """A function that measures a student's AP on the file's images, all of which are looked at before it is given.

    Raises:
        InputError: the file is damaged, or has no mask of the classes; an image is missing or of another size.
    """

    def measure(student: Student) -> float:
        most = student.config.detections
        ap = evaluate_student(student, truth, images, categories, image_px=image_px, detections=most, rule=rule)
        return ap.ap or 0.0

    file = read_truth_file(truth, categories)
    for image in file.images:
        file.check_size(int(image["id"]), _size_hw(images, file_name(image, truth), rule))
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

    Raises:
        InputError: as `ap_on_file`.
    """
    file = read_truth_file(truth, categories)
    as_in_first_process(student)
    rows: list[dict[str, Any]] = []
    for image in share(file.images):
        pixels = read_pixels(images, file_name(image, truth), rule)
        file.check_size(int(image["id"]), (pixels.shape[1], pixels.shape[2]))
        rows += coco_rows(student.predict([pixels], image_px=image_px)[0], int(image["id"]), categories)
    everything = sorted(gathered(rows), key=lambda row: int(row["image_id"]))
    return mask_ap(file.truth.objects, as_predictions(renumbered(everything, file.ids)), detections=detections)


def _size_hw(root: ImagesRoot, file_name: str, rule: PixelRule) -> tuple[int, int]:
    try:
        return read_header(read_file(root, file_name), rule=rule).size_hw
    except RejectError as error:
        raise InputError(f"{root}: {file_name}: {error}") from None


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
