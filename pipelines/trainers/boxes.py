"""The CondInst teachers (BoxInst, BoxTeacher, BoxSeg) on a run's boxes: whole images, then the shared loop."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pseudolabel.config import parse_config, result_relevant
from pseudolabel.errors import ConfigError, InputError, RejectError
from pseudolabel.pipelines.run.commit import read_footer
from pseudolabel.pipelines.run.fingerprint import file_sha256
from pseudolabel.pipelines.run.paths import RunPaths
from pseudolabel.pipelines.run.plan import Plan, read_plan
from pseudolabel.pipelines.trainers.boxed_images import BoxedImage, boxed_images
from pseudolabel.pipelines.trainers.teacher import TrainTeacherConfig, methods_of
from pseudolabel.registry import Registry, did_you_mean

if TYPE_CHECKING:
    from torch import Tensor

    from pseudolabel.condinst.batch import Batch, Targets
    from pseudolabel.teachers.condinst.infer import InputSize

_CLASSES = Registry(
    "teacher",
    {
        "boxinst": "pseudolabel.teachers.condinst.boxinst:BoxInst",
        "boxteacher": "pseudolabel.teachers.condinst.boxteacher:BoxTeacher",
        "boxseg": "pseudolabel.teachers.condinst.boxseg:BoxSeg",
    },
)
_CONFIGS = Registry(
    "teacher",
    {
        "boxinst": "pseudolabel.teachers.condinst.boxinst:BoxInstConfig",
        "boxteacher": "pseudolabel.teachers.condinst.boxteacher:BoxTeacherConfig",
        "boxseg": "pseudolabel.teachers.condinst.boxseg:BoxSegConfig",
    },
)


# options that say how the loop runs or what is fed to it, and nothing of network or losses
_OF_THE_LOOP = (
    *("method", "epochs", "batch_size", "image_px", "mask_classes", "seed", "precision", "devices", "nodes", "device"),
    *("loader_workers", "threads", "checkpoint_every", "backbone", "backbone_weights"),
)
_OPTIONS = tuple(name for name in TrainTeacherConfig.model_fields if name not in _OF_THE_LOOP)
_OWN_NAMES = {"learning_rate": "lr", "encoder_learning_rate": "encoder_lr", "pairwise_warmup": "warmup"}


def train_boxes(run: RunPaths, config: TrainTeacherConfig, device: str) -> Path:
    """Train the method that the config names on every image with a box, and write `models/teacher.safetensors`.

    Raises:
        ConfigError: options that do not go together.
        InputError: no box to learn from, or a degenerate one; or no mask where masks are to be learned from.
    """
    from pseudolabel.condinst.network import CondInst
    from pseudolabel.teachers.condinst.infer import InputSize
    from pseudolabel.training.checkpoint import save_model
    from pseudolabel.training.fit import fit

    if config.supervision == "masks" and (config.method != "boxinst" or config.copy_paste):
        raise ConfigError("train-teacher: supervision masks is the reference without a teacher: --method boxinst alone")
    plan = read_plan(run)
    classes = [category["id"] for category in plan.categories]
    images = boxed_images(run, plan, classes)
    masked = masked_objects(images, plan, config)
    size = InputSize(short_px=config.image_px, long_px=2 * config.image_px)
    # copy-paste needs a moving average that finds tutors, also where nothing else is learned from it
    kind = "boxteacher" if config.method == "boxinst" and config.copy_paste else config.method
    model = parse_config(_CONFIGS.load(kind), model_values(config), where="train-teacher")
    method = _CLASSES.load(kind)(CondInst(model, len(classes)), model)
    loader = Images(plan, images, size, num_classes=len(classes), masked=masked)
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
        "categories": [{"id": int(row["id"]), "name": str(row["name"])} for row in plan.categories],
        "trained": result_relevant(config),
        "images": len(images),
    }
    save_model(run.model("teacher"), method.model_state(), about)
    return run.model("teacher")


def masked_objects(images: Sequence[BoxedImage], plan: Plan, config: TrainTeacherConfig) -> list[list[bool]] | None:
    """Of every image's objects those whose true masks are learned from; None where no mask is looked at.

    Raises:
        ConfigError: an unknown class.
        InputError: masks are asked for, and there is none; or with `masks` not one for every object.
    """
    if config.supervision == "boxes":
        return None
    wanted = _class_indices(config.mask_classes, plan)
    masked = [
        [mask is not None and label in wanted for mask, label in zip(image.segmentations, image.labels, strict=True)]
        for image in images
    ]
    without = sum(row.count(False) for row in masked)
    if without and (config.supervision == "masks" or not any(any(row) for row in masked)):
        raise InputError(
            f"{plan.source}: {without} objects have no mask, and --supervision {config.supervision} needs "
            f"{'one for each' if config.supervision == 'masks' else 'some'}; --supervision boxes needs none"
        )
    return masked


def _class_indices(names: Sequence[str], plan: Plan) -> set[int]:
    """Indices of these classes; of all where none is named."""
    known = {category["name"]: place for place, category in enumerate(plan.categories)}
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
        size: "InputSize",
        *,
        num_classes: int,
        masked: Sequence[Sequence[bool]] | None = None,
    ) -> None:
        self._plan, self._images, self._size, self._num_classes = plan, images, size, num_classes
        self._masked = masked

    def load(self, places: Sequence[int]) -> "Batch":
        """The padded batch of these images.

        Raises:
            InputError: an image cannot be read any more, or a box of it cannot be trained on.
        """
        from pseudolabel.condinst.batch import collate

        chosen = [self._images[place] for place in places]
        read = [self._read(place) for place in places]
        heights, names = [image.height for image in chosen], [image.file_name for image in chosen]
        return collate([one for one, _ in read], [two for _, two in read], original_heights=heights, names=names)

    def _read(self, place: int) -> "tuple[Any, Targets]":
        import torch

        from pseudolabel.condinst.batch import Targets, check_targets
        from pseudolabel.images import load_image
        from pseudolabel.teachers.condinst.infer import resize_image

        image = self._images[place]
        try:
            pixels = load_image(self._plan.images_root, image.file_name, rule=self._plan.pixel_rule)
        except RejectError as error:
            raise InputError(f"{image.file_name}: {error}; it was sound when `shard` read it") from None
        resized = resize_image(pixels, self._size)
        boxes = torch.tensor(image.boxes_xyxy) * torch.tensor([*resized.factor_xy, *resized.factor_xy])
        size_hw = (resized.image.shape[1], resized.image.shape[2])
        targets = Targets(boxes, torch.tensor(image.labels))
        check_targets(targets, size_hw, self._num_classes, name=image.file_name)
        if self._masked is not None:
            has_mask = self._masked[place]
            targets = replace(targets, masks=true_masks(image, has_mask, size_hw), has_mask=torch.tensor(has_mask))
        return resized.image, targets


def true_masks(image: BoxedImage, has_mask: Sequence[bool], size_hw: tuple[int, int]) -> "Tensor":
    """(n, h, w) masks on the grid of the image at the network's size; empty for objects whose mask is not used."""
    import numpy as np
    import torch

    from pseudolabel.condinst.batch import resized_masks
    from pseudolabel.rle import decode, from_segmentation

    full = np.zeros((len(has_mask), image.height, image.width), dtype=bool)
    for place, (text, used) in enumerate(zip(image.segmentations, has_mask, strict=True)):
        if used and text is not None:
            full[place] = decode(from_segmentation(json.loads(text), (image.height, image.width)))
    return resized_masks(torch.from_numpy(full), size_hw)


def model_values(config: TrainTeacherConfig) -> dict[str, Any]:
    """What the command's options say about network and losses, by the names of the method's own config."""
    values = {
        _OWN_NAMES.get(name, name): getattr(config, name)
        for name in ("backbone", "backbone_weights", *_OPTIONS)
        if not methods_of(name) or _looks_at(config, name)
    }
    if config.method == "boxinst" and not config.copy_paste:
        del values["copy_paste"]
    elif config.method == "boxinst":
        return values | {"pixel_weight": 0.0, "affinity_weight": 0.0, "strong": False, "result": "student"}
    return values


def _looks_at(config: TrainTeacherConfig, name: str) -> bool:
    methods = methods_of(name)
    return config.method in methods or (config.copy_paste and f"{config.method}+" in methods)


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
