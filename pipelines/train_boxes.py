"""The CondInst teachers (BoxInst, BoxTeacher, BoxSeg) on a run's boxes: whole images, then the shared loop."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pseudolabel.config import parse_config, result_relevant
from pseudolabel.errors import InputError, RejectError
from pseudolabel.pipelines.commit import read_footer, read_part
from pseudolabel.pipelines.fingerprint import file_sha256
from pseudolabel.pipelines.paths import RunPaths
from pseudolabel.pipelines.plan import Plan, read_plan
from pseudolabel.pipelines.train_teacher import TrainTeacherConfig
from pseudolabel.registry import Registry

if TYPE_CHECKING:
    from pseudolabel.condinst.batch import Batch, Targets
    from pseudolabel.teachers.condinst_infer import InputSize

_CLASSES = Registry(
    "teacher",
    {
        "boxinst": "pseudolabel.teachers.boxinst:BoxInst",
        "boxteacher": "pseudolabel.teachers.boxteacher:BoxTeacher",
        "boxseg": "pseudolabel.teachers.boxseg:BoxSeg",
    },
)
_CONFIGS = Registry(
    "teacher",
    {
        "boxinst": "pseudolabel.teachers.boxinst:BoxInstConfig",
        "boxteacher": "pseudolabel.teachers.boxteacher:BoxTeacherConfig",
        "boxseg": "pseudolabel.teachers.boxseg:BoxSegConfig",
    },
)


@dataclass(frozen=True, slots=True)
class BoxedImage:
    """An image of the run with its boxes and their classes' indices."""

    file_name: str
    height: int
    boxes_xyxy: list[list[float]]
    labels: list[int]


def train_boxes(run: RunPaths, config: TrainTeacherConfig, device: str) -> Path:
    """Train the method that the config names on every image with a box, and write `models/teacher.safetensors`.

    Raises:
        ConfigError: options that do not go together.
        InputError: no box to learn from, or a degenerate one.
    """
    from pseudolabel.condinst.network import CondInst
    from pseudolabel.teachers.condinst_infer import InputSize
    from pseudolabel.training.checkpoint import save_model
    from pseudolabel.training.fit import fit

    plan = read_plan(run)
    classes = [category["id"] for category in plan.categories]
    images = boxed_images(run, plan, classes)
    size = InputSize(short_px=config.image_px, long_px=2 * config.image_px)
    model = parse_config(_CONFIGS.load(config.method), _model_values(config), where="train-teacher")
    method = _CLASSES.load(config.method)(CondInst(model, len(classes)), model)
    loader = Images(plan, images, size, num_classes=len(classes))
    fit(
        method,
        loader.load,
        len(images),
        run.logs("train-teacher") / _digest(run, config),
        _settings(config, len(images), device),
    )
    about = {
        "method": config.method,
        "model": model.model_dump(mode="json"),
        "input": size.model_dump(mode="json"),
        "classes": classes,
        "trained": config.model_dump(mode="json"),
        "images": len(images),
    }
    save_model(run.model("teacher"), method.model_state(), about)
    return run.model("teacher")


def boxed_images(run: RunPaths, plan: Plan, classes: Sequence[int]) -> list[BoxedImage]:
    """Usable images with at least one box that is no crowd, in the order of shards and keys.

    Raises:
        InputError: there is none.
    """
    index = {category: place for place, category in enumerate(classes)}
    found = []
    for shard in range(plan.num_shards):
        rows = read_part(run.part("manifest", shard, plan.num_shards)).to_pylist()
        for row in sorted(rows, key=lambda row: str(row["image_key"])):
            if row["status"] != "ok" or row["annotation_id"] is not None:
                continue
            objects = [one for one in row["objects"] or () if not one["iscrowd"]]
            if objects:
                boxes = [_xyxy(one["bbox_xywh"]) for one in objects]
                labels = [index[one["category_id"]] for one in objects]
                found.append(BoxedImage(row["file_name"], row["height"], boxes, labels))
    if not found:
        raise InputError(f"{plan.source}: no box to learn from")
    return found


class Images:
    """Batches of resized images with their boxes."""

    def __init__(self, plan: Plan, images: Sequence[BoxedImage], size: "InputSize", *, num_classes: int) -> None:
        self._plan, self._images, self._size, self._num_classes = plan, images, size, num_classes

    def load(self, places: Sequence[int]) -> "Batch":
        """The padded batch of these images.

        Raises:
            InputError: an image cannot be read any more, or a box of it cannot be trained on.
        """
        from pseudolabel.condinst.batch import collate

        chosen = [self._images[place] for place in places]
        read = [self._read(image) for image in chosen]
        heights, names = [image.height for image in chosen], [image.file_name for image in chosen]
        return collate([one for one, _ in read], [two for _, two in read], original_heights=heights, names=names)

    def _read(self, image: BoxedImage) -> "tuple[Any, Targets]":
        import torch

        from pseudolabel.condinst.batch import Targets, check_targets
        from pseudolabel.images import load_image
        from pseudolabel.teachers.condinst_infer import resize_image

        try:
            pixels = load_image(self._plan.images_root, image.file_name, exif=self._plan.exif)
        except RejectError as error:
            raise InputError(f"{image.file_name}: {error}; it was sound when `shard` read it") from None
        resized = resize_image(pixels, self._size)
        boxes = torch.tensor(image.boxes_xyxy) * torch.tensor([*resized.factor_xy, *resized.factor_xy])
        targets = Targets(boxes, torch.tensor(image.labels))
        check_targets(
            targets, (resized.image.shape[1], resized.image.shape[2]), self._num_classes, name=image.file_name
        )
        return resized.image, targets


def _model_values(config: TrainTeacherConfig) -> dict[str, Any]:
    """What the command's options say about network and losses; a method takes those that it knows."""
    known = _CONFIGS.load(config.method).model_fields
    values = {
        "backbone": config.backbone,
        "backbone_weights": config.backbone_weights,
        "channels": config.channels,
        "lr": config.learning_rate,
        "encoder_lr": config.encoder_learning_rate,
        "tau": config.tau,
        "pairwise_weight": config.pairwise_weight,
        "pixel_weight": config.pixel_weight,
        "affinity_weight": config.affinity_weight,
        "ema": config.ema,
    }
    return {name: value for name, value in values.items() if name in known}


def _settings(config: TrainTeacherConfig, count: int, device: str) -> Any:
    from pseudolabel.training.fit import FitConfig

    per_step = config.batch_size * config.devices * config.nodes
    return FitConfig(
        steps=max(1, round(config.epochs * count / per_step)),
        batch_size=config.batch_size,
        seed=config.seed,
        precision=config.precision,
        device=device,
        devices=config.devices,
        nodes=config.nodes,
        checkpoint_every=config.checkpoint_every,
        workers=config.loader_workers,
    )


def _digest(run: RunPaths, config: TrainTeacherConfig) -> str:
    """Names the training, so that a checkpoint is only ever continued by the training that wrote it."""
    parts = sorted(run.table("manifest").glob("part-*.parquet"))
    content = {
        "config": result_relevant(config),
        "weights": {name: file_sha256(path) for name, path in config.weight_files().items()},
        "manifest": [read_footer(path).fingerprint for path in parts],
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]


def _xyxy(bbox: Sequence[float]) -> list[float]:
    x, y, width, height = bbox
    return [float(x), float(y), float(x + width), float(y + height)]
