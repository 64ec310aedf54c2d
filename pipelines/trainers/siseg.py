"""`train-siseg`: the heads of SISeg, trained on the run's images with semantic labels alone."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pseudolabel.config import Config, option, result_relevant
from pseudolabel.encoders.resolve import BACKBONE_HELP, WEIGHTS_HELP, backbone_files
from pseudolabel.errors import ConfigError, InputError, RejectError
from pseudolabel.pipelines.run.commit import read_footer, read_part
from pseudolabel.pipelines.run.fingerprint import file_sha256
from pseudolabel.pipelines.run.paths import RunPaths
from pseudolabel.pipelines.run.plan import Plan, read_plan
from pseudolabel.pipelines.stages.infer_siseg import object_classes
from pseudolabel.pipelines.work.device import resolve_device

if TYPE_CHECKING:
    import numpy as np

    from pseudolabel.siseg.train import SisegTraining
    from pseudolabel.siseg.views import View

Row = dict[str, Any]


class TrainSisegConfig(Config):
    """Options of `train-siseg`. Lengths are pixels of the resized image; a cell has four of them."""

    labels: str = option("semantic", "semantic (the run's own masks), labels:DIR of PNGs, or truth")
    label_format: Literal["voc", "ade20k", "cityscapes-labelids", "cityscapes-trainids", "raw"] | None = option(
        None, "what the values in labels:DIR mean"
    )
    backbone: str = option("resnet50", BACKBONE_HELP + "; all but tiny stay as pretrained")
    backbone_weights: str = option("hub", WEIGHTS_HELP)
    head_width: int = option(256, "channels of the displacement head, a multiple of 64", ge=64)
    scale: float = option(1.0, "resize images by this; objects want to be 10 to 100 cells of 4 px wide", gt=0, le=8)
    smallest_scale: float = option(0.5, "smallest random scale of a mirrored view", gt=0)
    largest_scale: float = option(1.5, "largest random scale of a mirrored view", gt=0)
    crop: int = option(512, "side of a training crop, a multiple of 16", ge=96)
    radius: int = option(10, "of the pairs, in cells", ge=2, le=20)
    steps: int = option(600, "optimiser steps", ge=1)
    batch_size: int = option(4, "crops per step and process", ge=1)
    learning_rate: float = option(2e-3, "of the displacement head; the boundary head's is a tenth", gt=0)
    weight_object: float = option(1.0, "of the displacement term on objects", ge=0)
    weight_background: float = option(1.0, "of the displacement term on background", ge=0)
    weight_boundary: float = option(1.0, "of the boundary term", ge=0)
    seed: int = option(0, "of weights, crops and order", ge=0)
    devices: int = option(1, "processes, one per GPU", ge=1)
    nodes: int = option(1, "machines", ge=1)
    cache_gib: float = option(4.0, "memory for features of a frozen backbone", changes_result=False, ge=0)
    threads: int = option(0, "CPU threads; 0 = torch's choice", changes_result=False, ge=0)
    device: str = option("auto", "auto, cpu, cuda or cuda:N", changes_result=False, pattern=r"^(auto|cpu|cuda(:\d+)?)$")
    checkpoint_every: int = option(100, "steps between checkpoints", changes_result=False, ge=1)

    def tables(self) -> tuple[str, ...]:
        """Tables that decide the result."""
        return ("manifest", "semantic") if self.labels == "semantic" else ("manifest",)

    def weight_files(self) -> dict[str, Path]:
        """Files that decide the result."""
        return backbone_files(self.backbone, self.backbone_weights)


@dataclass(frozen=True, slots=True)
class LabelledImage:
    """An image of the run, and how to get its labels (0 background, 255 ignore)."""

    file_name: str
    size_hw: tuple[int, int]
    read_labels: "Callable[[], np.ndarray]"


def train_siseg(run: RunPaths, config: TrainSisegConfig) -> Path:
    """Train on the run's usable images and write `models/siseg.safetensors` with its YAML; the path of the weights.

    A training that was stopped goes on from its last checkpoint, to the same weights.

    Raises:
        ConfigError: options that do not go together.
        InputError: no image has labels with an object on it.
    """
    import torch

    from pseudolabel.siseg.model import SisegCard, new_network, save_siseg
    from pseudolabel.siseg.train import Samples, SisegMethod, set_mean_displacement

    if config.smallest_scale > config.largest_scale or config.crop % 16:
        raise ConfigError("--smallest-scale must not exceed --largest-scale, and --crop must be a multiple of 16")
    if config.threads:
        torch.set_num_threads(config.threads)
    device = resolve_device(config.device, stage_uses_gpu=True)
    torch.manual_seed(config.seed)
    card = SisegCard(backbone=config.backbone, head_width=config.head_width, scale=config.scale)
    network, card = new_network(card, config.backbone_weights)
    network.to(device)
    views = _Views(read_plan(run), labelled_images(run, config), config)
    samples = Samples(network, views, device=device, cache_bytes=int(config.cache_gib * 2**30))
    _fit(SisegMethod(network, _recipe(config)), samples, len(views), run, config, device)
    set_mean_displacement(network.to(device), (samples([index])[0] for index in range(0, len(views), 2)))
    about = {"trained": config.model_dump(mode="json"), "images": len(views) // 2}
    save_siseg(run.model("siseg"), network, card, about)
    return run.model("siseg")


def labelled_images(run: RunPaths, config: TrainSisegConfig) -> list[LabelledImage]:
    """Usable images in the order of their keys, with what reads their labels.

    Raises:
        ConfigError: `labels` is none of the three forms.
        InputError: there is no image with labels.
    """
    plan = read_plan(run)
    images = sorted(_usable(_rows(run, plan, "manifest")), key=lambda row: str(row["image_key"]))
    if config.labels == "semantic":
        found = _from_semantic(images, _rows(run, plan, "semantic"), plan)
    elif config.labels == "truth":
        found = [LabelledImage(row["file_name"], _size(row), lambda row=row: _truth(row, plan)) for row in images]
    elif config.labels.startswith("labels:"):
        found = _from_files(images, config, plan)
    else:
        raise ConfigError(f"--labels {config.labels!r}: expected semantic, labels:DIR or truth")
    if not found:
        raise InputError(f"{run.root}: no image has labels to train on")
    return found


class _Views:
    """Two views per image: as it is, and mirrored at a random scale that the seed and the image fix."""

    def __init__(self, plan: Plan, images: Sequence[LabelledImage], config: TrainSisegConfig) -> None:
        self._plan, self._images, self._config = plan, images, config

    def __len__(self) -> int:
        return 2 * len(self._images)

    def __call__(self, index: int) -> "View":
        import numpy as np

        from pseudolabel.images import load_image
        from pseudolabel.siseg.views import make_view

        image, mirrored = self._images[index // 2], bool(index % 2)
        pixels = load_image(self._plan.images_root, image.file_name, rule=self._plan.pixel_rule)
        random = np.random.default_rng([self._config.seed, index])
        low, high = self._config.smallest_scale, self._config.largest_scale
        scale = self._config.scale * (float(random.uniform(low, high)) if mirrored else 1.0)
        return make_view(image.file_name, pixels, image.read_labels(), scale=scale, flip=mirrored)


def _fit(method: Any, samples: Any, count: int, run: RunPaths, config: TrainSisegConfig, device: str) -> None:
    from pseudolabel.training.fit import FitConfig, fit

    settings = FitConfig(
        steps=config.steps,
        batch_size=config.batch_size,
        seed=config.seed,
        device=device,
        devices=config.devices,
        nodes=config.nodes,
        weight_decay=1e-4,
        checkpoint_every=config.checkpoint_every,
    )
    folder = run.logs("train-siseg") / _digest(run, config)
    fit(method, samples, count, folder, settings)


def _digest(run: RunPaths, config: TrainSisegConfig) -> str:
    """Names the training, so that a checkpoint is only ever continued by the training that wrote it."""
    parts = [path for table in config.tables() for path in sorted(run.table(table).glob("part-*.parquet"))]
    content = {
        "config": result_relevant(config),
        "weights": {name: file_sha256(path) for name, path in config.weight_files().items()},
        "tables": {f"{path.parent.name}/{path.name}": read_footer(path).fingerprint for path in parts},
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]


def _recipe(config: TrainSisegConfig) -> "SisegTraining":
    from pseudolabel.siseg.losses import TermWeights
    from pseudolabel.siseg.train import SisegTraining

    weights = TermWeights(config.weight_object, config.weight_background, config.weight_boundary)
    return SisegTraining(config.learning_rate, config.crop, config.radius, weights)


def _from_semantic(images: list[Row], rows: Iterator[Row], plan: Plan) -> list[LabelledImage]:
    semantic = {row["image_key"]: row for row in rows if row["status"] == "ok"}
    return [
        LabelledImage(image["file_name"], _size(image), lambda row=semantic[image["image_key"]]: _own(row, plan))
        for image in images
        if image["image_key"] in semantic
    ]


def _own(row: Row, plan: Plan) -> "np.ndarray":
    from pseudolabel.segmenters.label_maps import decode_indices
    from pseudolabel.siseg.views import object_labels

    return object_labels(decode_indices(row["label_map"]), object_classes(row["classes"], plan.categories))


def _from_files(images: list[Row], config: TrainSisegConfig, plan: Plan) -> list[LabelledImage]:
    from pseudolabel.segmenters.base import Photo, SegmenterOptions, open_segmenter
    from pseudolabel.siseg.views import object_labels

    source = open_segmenter(config.labels, SegmenterOptions(label_format=config.label_format))
    objects = object_classes(source.classes, plan.categories)

    def read(image: Row) -> "np.ndarray":
        (result,) = source.predict([Photo(image["file_name"], _size(image))])
        if isinstance(result, RejectError):
            raise InputError(f"{config.labels}, {image['file_name']}: {result}")
        return object_labels(result.label_map, objects)

    return [LabelledImage(row["file_name"], _size(row), lambda row=row: read(row)) for row in images]


def _truth(image: Row, plan: Plan) -> "np.ndarray":
    """Labels from the annotations' own masks; crowds are ignored."""
    import numpy as np

    from pseudolabel.rle import decode, from_segmentation

    names = {category["id"]: place for place, category in enumerate(plan.categories, start=1)}
    labels = np.zeros(_size(image), np.uint8)
    for one in sorted(image["objects"] or [], key=lambda one: bool(one["iscrowd"]), reverse=True):
        if one["segmentation"] is None:
            raise InputError(f"{image['file_name']}: --labels truth, but annotation {one['annotation_id']} has no mask")
        mask = decode(from_segmentation(json.loads(one["segmentation"]), _size(image)))
        labels[mask] = 255 if one["iscrowd"] else names[one["category_id"]]
    return labels


def _rows(run: RunPaths, plan: Plan, table: str) -> Iterator[Row]:
    for shard in range(plan.num_shards):
        yield from read_part(run.part(table, shard, plan.num_shards)).to_pylist()


def _usable(rows: Iterator[Row]) -> Iterator[Row]:
    return (row for row in rows if row["status"] == "ok" and row["annotation_id"] is None)


def _size(row: Mapping[str, Any]) -> tuple[int, int]:
    return (row["height"], row["width"])
