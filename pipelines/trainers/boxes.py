"""The CondInst teachers (BoxInst, BoxTeacher, BoxSeg, SIM) on a run's boxes: whole images, then the shared loop."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pseudolabel.condinst.batch import Batch, Targets, check_targets, collate, resized_masks
from pseudolabel.condinst.network import CondInst
from pseudolabel.config import result_relevant
from pseudolabel.errors import ConfigError, InputError
from pseudolabel.pipelines.planning.plan import Plan, read_plan
from pseudolabel.pipelines.run.paths import RunPaths
from pseudolabel.pipelines.trainers.images import BoxedImage, boxed_images, check_boxes, load_pixels
from pseudolabel.pipelines.trainers.loop import begin, loop_config
from pseudolabel.registry import did_you_mean, load_target
from pseudolabel.rle import decode, from_segmentation
from pseudolabel.teachers.condinst.config import BoxInstConfig
from pseudolabel.teachers.condinst.infer import InputSize, resize_image
from pseudolabel.teachers.table import find_teacher
from pseudolabel.training.checkpoint import save_model
from pseudolabel.training.fit import fit


def train_boxes(run: RunPaths, config: BoxInstConfig, folder: Path) -> Path:
    """Train the method that the config names on every image with a box, and write `models/teacher.safetensors`.

    Raises:
        ConfigError: an unknown class.
        InputError: no box to learn from, or a degenerate one; or no mask where masks are to be learned from.
    """
    device = begin(config)
    plan = read_plan(run)
    images = boxed_images(run, plan)
    check_boxes(images)
    size = InputSize(short_px=config.image_px, long_px=2 * config.image_px)
    loader = Images(plan, images, size, masked=masked_objects(images, plan, config))
    make_method = load_target(find_teacher(config.method).method)
    method = make_method(CondInst(config, config.detector_classes(len(plan.categories))), config)
    fit(method, loader.load, len(images), folder, loop_config(config, len(images), device), name="train-teacher")
    about = {
        "method": config.method,
        "model": result_relevant(config),
        "input": size.model_dump(mode="json"),
        "categories": [{"id": int(row["id"]), "name": str(row["name"])} for row in plan.categories],
        "images": len(images),
    }
    save_model(run.model("teacher"), method.model_state(), about)
    return run.model("teacher")


def masked_objects(images: Sequence[BoxedImage], plan: Plan, config: BoxInstConfig) -> list[list[bool]] | None:
    """Of every image's objects those whose true masks are learned from; None where no mask is looked at.

    Raises:
        ConfigError: an unknown class.
        InputError: masks are asked for, and there is none; or with `masks` not one for every object.
    """
    if config.supervision == "boxes":
        return None
    wanted = _class_ids(config.mask_classes, plan)
    masked = [[one.segmentation is not None and one.category_id in wanted for one in image.objects] for image in images]
    without = sum(row.count(False) for row in masked)
    if without and (config.supervision == "masks" or not any(any(row) for row in masked)):
        raise InputError(
            f"{plan.source}: {without} objects have no mask, and --supervision {config.supervision} needs "
            f"{'one for each' if config.supervision == 'masks' else 'some'}; --supervision boxes needs none"
        )
    return masked


def _class_ids(names: Sequence[str], plan: Plan) -> set[int]:
    """Ids of these classes; of all where none is named."""
    known = {category["name"]: category["id"] for category in plan.categories}
    for name in names:
        if name not in known:
            raise ConfigError(f"train-teacher: mask_classes: no class {name!r}{did_you_mean(name, known)}")
    return {known[name] for name in names} or set(known.values())


class Images:
    """Batches of resized images with their boxes and, of the objects of `masked`, their true masks."""

    def __init__(
        self,
        plan: Plan,
        images: Sequence[BoxedImage],
        size: InputSize,
        *,
        masked: Sequence[Sequence[bool]] | None = None,
    ) -> None:
        self._plan, self._images, self._size, self._masked = plan, images, size, masked
        self._places = {category["id"]: place for place, category in enumerate(plan.categories)}

    def load(self, places: Sequence[int]) -> Batch:
        """The padded batch of these images.

        Raises:
            InputError: an image cannot be read any more, or a box of it cannot be trained on.
        """
        chosen = [self._images[place] for place in places]
        read = [self._read(place) for place in places]
        heights, names = [image.size_hw[0] for image in chosen], [image.file_name for image in chosen]
        return collate([one for one, _ in read], [two for _, two in read], original_heights=heights, names=names)

    def _read(self, place: int) -> tuple[Tensor, Targets]:
        image = self._images[place]
        pixels = load_pixels(self._plan, image.file_name)
        resized = resize_image(pixels, self._size)
        boxes = torch.tensor(image.boxes_xyxy) * torch.tensor([*resized.factor_xy, *resized.factor_xy])
        size_hw = (resized.image.shape[1], resized.image.shape[2])
        targets = Targets(boxes, torch.tensor([self._places[one] for one in image.category_ids]))
        check_targets(targets, size_hw, len(self._places), name=image.file_name)
        if self._masked is not None:
            has_mask = self._masked[place]
            targets = replace(targets, masks=true_masks(image, has_mask, size_hw), has_mask=torch.tensor(has_mask))
        return resized.image, targets


def true_masks(image: BoxedImage, has_mask: Sequence[bool], size_hw: tuple[int, int]) -> Tensor:
    """(n, h, w) masks on the grid of the image at the network's size; empty for objects whose mask is not used."""
    full = np.zeros((len(has_mask), *image.size_hw), dtype=bool)
    for place, (one, used) in enumerate(zip(image.objects, has_mask, strict=True)):
        if used and one.segmentation is not None:
            full[place] = decode(from_segmentation(json.loads(one.segmentation), image.size_hw))
    return resized_masks(torch.from_numpy(full), size_hw)
