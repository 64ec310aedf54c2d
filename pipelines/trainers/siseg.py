"""`train-siseg`: the heads of SISeg, trained on the run's images with semantic labels alone."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pseudolabel.candidates import ManifestImage
from pseudolabel.config import narrowed, result_relevant
from pseudolabel.errors import InputError, RejectError
from pseudolabel.pipelines.options.train_siseg import TrainSisegConfig
from pseudolabel.pipelines.planning.plan import Plan, read_plan
from pseudolabel.pipelines.run.paths import RunPaths
from pseudolabel.pipelines.stages.infer_siseg import categories_by_class, object_classes
from pseudolabel.pipelines.trainers.images import Row, load_pixels, table_rows, usable_images
from pseudolabel.pipelines.trainers.loop import begin, loop_config
from pseudolabel.rle import decode, from_segmentation
from pseudolabel.segmenters.base import Photo, SegmenterOptions, open_segmenter
from pseudolabel.segmenters.label_maps import decode_indices
from pseudolabel.siseg.config import SisegCard
from pseudolabel.siseg.model import new_network, save_siseg
from pseudolabel.siseg.train import Samples, SisegMethod, set_mean_displacement
from pseudolabel.siseg.views import LabelledBoxes, View, make_view, object_labels
from pseudolabel.training.fit import fit


@dataclass(frozen=True, slots=True)
class LabelledImage:
    """An image of the run, its boxes, and how to get its labels (0 background, 255 ignore)."""

    file_name: str
    size_hw: tuple[int, int]
    read_labels: Callable[[], np.ndarray]
    boxes: LabelledBoxes


def train_siseg(run: RunPaths, config: TrainSisegConfig, folder: Path) -> Path:
    """Train on the run's usable images and write `models/siseg.safetensors` with its YAML; the path of the weights.

    A training that was stopped goes on from its last checkpoint, to the same weights.

    Args:
        folder: of logs and checkpoints, of this training alone.

    Raises:
        ConfigError: options that do not go together.
        InputError: no image has labels with an object on it.
    """
    device = begin(config)
    network, card = new_network(narrowed(config, SisegCard), config.backbone_weights)
    network.to(device)
    views = _Views(read_plan(run), labelled_images(run, config), config)
    samples = Samples(network, views, device=device, cache_bytes=int(config.cache_gib * 2**30))
    settings = loop_config(config, len(views), device)
    fit(SisegMethod(network, config), samples, len(views), folder, settings, name="train-siseg")
    set_mean_displacement(network.to(device), (samples([index])[0] for index in range(0, len(views), 2)))
    about = {"trained": result_relevant(config), "images": len(views) // 2}
    save_siseg(run.model("siseg"), network, card, about)
    return run.model("siseg")


def labelled_images(run: RunPaths, config: TrainSisegConfig) -> list[LabelledImage]:
    """Usable images in the order of their keys, with what reads their labels.

    Raises:
        InputError: there is no image with labels.
    """
    plan = read_plan(run)
    images = sorted((row for _, row in usable_images(run, plan)), key=lambda row: str(row["image_key"]))
    if config.label_source == "semantic":
        found = _from_semantic(images, table_rows(run, plan, "semantic"), plan)
    elif config.label_source == "truth":
        place = _truth_labels(plan)
        found = [_labelled(row, lambda row=row: _truth(row, place), place) for row in images]
    else:
        found = _from_files(images, config, plan)
    if not found:
        raise InputError(f"{run.root}: no image has labels to train on")
    return found


class _Views:
    """Two views per image: as it is, and mirrored at a random scale that the seed and the image fix."""

    def __init__(self, plan: Plan, images: Sequence[LabelledImage], config: TrainSisegConfig) -> None:
        self._plan, self._images, self._config = plan, images, config

    def __len__(self) -> int:
        return 2 * len(self._images)

    def __call__(self, index: int) -> View:
        image, mirrored = self._images[index // 2], bool(index % 2)
        pixels = load_pixels(self._plan, image.file_name)
        random = np.random.default_rng([self._config.seed, index])
        low, high = self._config.smallest_scale, self._config.largest_scale
        scale = self._config.scale * (float(random.uniform(low, high)) if mirrored else 1.0)
        labels = image.read_labels()
        return make_view(image.file_name, pixels, labels, boxes=image.boxes, scale=scale, flip=mirrored)


def _from_semantic(images: list[Row], rows: Iterator[Row], plan: Plan) -> list[LabelledImage]:
    semantic = {row["image_key"]: row for row in rows if row["status"] == "ok"}
    found = []
    for image in images:
        if (row := semantic.get(image["image_key"])) is not None:
            places = _labels_of(row["classes"], plan)
            found.append(_labelled(image, lambda row=row: _own(row, plan), places))
    return found


def _labelled(image: Row, read: Callable[[], np.ndarray], label_of: Mapping[int, int]) -> LabelledImage:
    """An image of the manifest.

    Args:
        label_of: label of every category that has one; boxes of others, and of crowds, say nothing.
    """
    objects = ManifestImage.from_row(image).objects
    known = [one for one in objects if one.category_id in label_of]
    boxes = LabelledBoxes([one.box_xyxy for one in known], [label_of[one.category_id] for one in known])
    return LabelledImage(image["file_name"], _size(image), read, boxes)


def _labels_of(classes: Sequence[str], plan: Plan) -> dict[int, int]:
    """The label that `object_labels` gives every category whose class the segmenter knows."""
    found = categories_by_class(classes, plan.categories)
    return {category: index + 1 for index, categories in found.items() for category in categories}


def _own(row: Row, plan: Plan) -> np.ndarray:
    return object_labels(decode_indices(row["label_map"]), object_classes(row["classes"], plan.categories))


def _from_files(images: list[Row], config: TrainSisegConfig, plan: Plan) -> list[LabelledImage]:
    source = open_segmenter(config.label_source, SegmenterOptions(label_format=config.label_format))
    objects = object_classes(source.classes, plan.categories)

    def read(image: Row) -> np.ndarray:
        (result,) = source.predict([Photo(image["file_name"], _size(image))])
        if isinstance(result, RejectError):
            raise InputError(f"{config.label_source}, {image['file_name']}: {result}")
        return object_labels(result.label_map, objects)

    places = _labels_of(source.classes, plan)
    return [_labelled(row, lambda row=row: read(row), places) for row in images]


def _truth_labels(plan: Plan) -> dict[int, int]:
    return {category["id"]: place for place, category in enumerate(plan.categories, start=1)}


def _truth(image: Row, names: Mapping[int, int]) -> np.ndarray:
    """Labels from the annotations' own masks; crowds are ignored."""
    labels = np.zeros(_size(image), np.uint8)
    for one in sorted(image["objects"] or [], key=lambda one: bool(one["iscrowd"]), reverse=True):
        if one["segmentation"] is None:
            raise InputError(
                f"{image['file_name']}: --label-source truth, but annotation {one['annotation_id']} has no mask"
            )
        mask = decode(from_segmentation(json.loads(one["segmentation"]), _size(image)))
        labels[mask] = 255 if one["iscrowd"] else names[one["category_id"]]
    return labels


def _size(row: Mapping[str, Any]) -> tuple[int, int]:
    return (row["height"], row["width"])
