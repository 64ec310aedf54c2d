"""The box-conditioned teacher on a run's boxes: objects from the manifest, canvases on disk, then the shared loop."""

import hashlib
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pseudolabel.config import result_relevant
from pseudolabel.errors import InputError, MachineError, RejectError
from pseudolabel.pipelines.run.commit import read_footer, read_part
from pseudolabel.pipelines.run.fingerprint import file_sha256
from pseudolabel.pipelines.run.paths import RunPaths
from pseudolabel.pipelines.run.plan import Plan, read_plan
from pseudolabel.pipelines.trainers.mal_rounds import VIEWS, BoxedImage, Targets
from pseudolabel.pipelines.trainers.teacher import TrainTeacherConfig
from pseudolabel.progress import tracked
from pseudolabel.training.leftovers import mark_in_use, sweep_abandoned

if TYPE_CHECKING:
    import numpy as np

    from pseudolabel.fusion.candidates import Target
    from pseudolabel.teachers.mal.crops import CropBatch
    from pseudolabel.teachers.mal.method import MalConfig

_MIN_SIDE_PX = 1.0
_LOOK_S = 0.5
_CROP_STEP_PX = 32
_LEAST_CANVAS_PX = 64


def train_mal(run: RunPaths, config: TrainTeacherConfig, device: str) -> Path:
    """Train on every box of the run that is no crowd and at least a pixel wide and high, round after round.

    The first round learns from the boxes alone, unless `guided_from` says 1; each later one, from the start again, also
    from the masks that the last one's network gave, with those of `guides`, fused.
    """
    from pseudolabel.pipelines.trainers.mal_rounds import fused_targets
    from pseudolabel.teachers.mal.infer import MalTeacher
    from pseudolabel.training.checkpoint import save_model

    models = mal_configs(config)
    plan = read_plan(run)
    images = list(boxed_images(run, plan))
    folder = run.logs("train-teacher") / _digest(run, config)
    objects = Canvases(folder, plan, images, models[0].canvas_px)
    method, teacher = None, None
    for number, model in enumerate(models, start=1):
        own = folder if number == 1 else folder / f"round-{number}"
        guides = config.guides if number >= config.guided_from else []
        if teacher is not None or guides:
            objects.targets = fused_targets(run, plan, images, teacher, guides, own / "targets.npy")
        method = _trained(objects, model, config, own, device)
        teacher = MalTeacher(method.average, model, device=device, views=VIEWS)
    assert method is not None, "there is at least one round"
    about = {
        "method": "mal",
        "model": model.model_dump(mode="json"),
        "trained": result_relevant(config),
        "objects": len(objects),
    }
    save_model(run.model("teacher"), method.model_state(), about)
    objects.close()
    return run.model("teacher")


def _trained(objects: "Canvases", model: "MalConfig", config: TrainTeacherConfig, folder: Path, device: str) -> Any:
    """A new network after one round; a round that ended is only read again."""
    import torch

    from pseudolabel.teachers.mal.method import Mal
    from pseudolabel.teachers.mal.network import build_network
    from pseudolabel.training.fit import fit

    torch.manual_seed(config.seed)
    chosen = _chosen(len(objects), config)
    method = Mal(build_network(model.backbone, config.backbone_weights, width=model.width), model)
    settings = _settings(config, len(chosen), device)
    fit(method, lambda places: objects.load([chosen[place] for place in places]), len(chosen), folder, settings)
    return method


def mal_configs(config: TrainTeacherConfig) -> "list[MalConfig]":
    """The part of the options that describes the network and its losses, round by round; crops grow evenly from
    `crop_px` to `last_crop_px`, as the masks to learn from get better; the canvases are the same for all.
    """
    from pseudolabel.teachers.mal.method import MalConfig

    growth = (max(config.last_crop_px, config.crop_px) / config.crop_px) ** (1 / max(config.rounds - 1, 1))
    sides = [_CROP_STEP_PX * round(config.crop_px * growth**number / _CROP_STEP_PX) for number in range(config.rounds)]
    plain = MalConfig(
        backbone=config.backbone,
        crop_px=config.crop_px,
        canvas_px=max(max(sides) * 3 // 2, _LEAST_CANVAS_PX),  # a crop shows three quarters of it or less
        lr=config.learning_rate,
        encoder_lr=config.encoder_learning_rate,
        freeze=config.freeze,
        tau=config.tau,
        pairwise_weight=config.pairwise_weight,
        teacher_from=config.teacher_from,
        pixel_weight=config.pixel_weight,
        affinity_weight=config.affinity_weight,
        ema=config.ema,
        field_weight=config.field_weight,
        label_weight=config.label_weight,
        copy_paste_probability=config.copy_paste_probability if config.copy_paste else 0.0,
    )
    return [plain.model_copy(update={"crop_px": side}) for side in sides]


def boxed_images(run: RunPaths, plan: Plan) -> Iterator[BoxedImage]:
    """Usable images with at least one box, in the order of shards and keys."""
    for shard in range(plan.num_shards):
        rows = read_part(run.part("manifest", shard, plan.num_shards)).to_pylist()
        for row in sorted(rows, key=lambda row: str(row["image_key"])):
            if row["status"] != "ok" or row["annotation_id"] is not None:
                continue
            objects = tuple(_target(one) for one in row["objects"] or () if _usable(one))
            if objects:
                size_wh = (row["width"], row["height"])
                yield BoxedImage(row["image_key"], shard, row["file_name"], size_wh, objects)


class Canvases:
    """All objects of a run with their canvases in one file on disk, cut once, read by number."""

    def __init__(self, folder: Path, plan: Plan, images: Sequence[BoxedImage], side_px: int) -> None:
        import torch

        from pseudolabel.teachers.mal.crops import neighbour_boxes

        if not images:
            raise InputError(f"{plan.source}: no box to learn from; a teacher needs boxes of at least a pixel")
        boxes = [torch.tensor(image.boxes_xyxy) for image in images]
        self._boxes = torch.cat(boxes)
        near = [
            neighbour_boxes(one, torch.tensor(image.category_ids)) for one, image in zip(boxes, images, strict=True)
        ]
        self._others, self._rivals = (torch.cat(parts) for parts in zip(*near, strict=True))
        sizes = [
            torch.tensor([image.size_wh], dtype=torch.float32).expand(len(image.boxes_xyxy), 2) for image in images
        ]
        self._sizes = torch.cat(sizes)
        self._names = [image.file_name for image in images for _ in image.boxes_xyxy]
        self.targets: Targets | None = None  # what an earlier round found
        self._path = folder / f"canvases-{side_px}.u8"
        self._mark = mark_in_use(folder)
        sweep_abandoned(folder.parent, "canvases-*.u8")
        self._pixels = self._mapped(plan, images, side_px)

    def __len__(self) -> int:
        return len(self._names)

    def load(self, places: Sequence[int]) -> "CropBatch":
        """The batch of these objects."""
        import torch

        from pseudolabel.teachers.mal.crops import CropBatch

        index = torch.tensor(list(places))
        canvas = torch.from_numpy(self._pixels[list(places)])
        names = tuple(self._names[place] for place in places)
        others, rivals = self._others[index], self._rivals[index]
        batch = CropBatch(canvas, self._boxes[index], others, rivals, self._sizes[index], names)
        if self.targets is None:
            return batch
        masks, scores = self.targets.masks[list(places)], self.targets.scores[list(places)]
        return replace(batch, masks=torch.from_numpy(masks), scores=torch.from_numpy(scores))

    def close(self) -> None:
        """Remove the file; the training is done, in every process."""
        from pseudolabel.training.processes import is_first_process, wait_for_all

        del self._pixels
        self._mark.unlink(missing_ok=True)
        wait_for_all()
        if is_first_process():
            self._path.unlink(missing_ok=True)

    def _mapped(self, plan: Plan, images: Sequence[BoxedImage], side_px: int) -> "np.ndarray":
        """The canvases of an earlier, stopped call, or new ones, which the first of several processes cuts for all."""
        import numpy as np

        from pseudolabel.files import atomic_path
        from pseudolabel.training.processes import is_first_process

        shape = (len(self._names), 3, side_px, side_px)
        size_bytes = int(np.prod(shape, dtype=np.int64))
        while not is_first_process() and not _is_there(self._path, size_bytes):
            time.sleep(_LOOK_S)  # whoever started the processes ends all of them with the first
        if not _is_there(self._path, size_bytes):
            with atomic_path(self._path) as temporary:
                _check_space(temporary.parent, size_bytes)
                file = np.memmap(temporary, np.uint8, "w+", shape=shape)
                _fill(file, plan, images, side_px)
                file.flush()
        return np.memmap(self._path, np.uint8, "r", shape=shape)


def _is_there(path: Path, size_bytes: int) -> bool:
    return path.exists() and path.stat().st_size == size_bytes


def _fill(file: "np.ndarray", plan: Plan, images: Sequence[BoxedImage], side_px: int) -> None:
    import torch

    from pseudolabel.teachers.mal.crops import cut_canvases

    place = 0
    for image in tracked(images, "train-teacher: crops", unit="image"):
        pixels = load_pixels(plan, image.file_name)
        boxes = torch.tensor(image.boxes_xyxy)
        file[place : place + len(boxes)] = cut_canvases(pixels, boxes, side_px).numpy()
        place += len(boxes)


def load_pixels(plan: Plan, file_name: str) -> "np.ndarray":
    """An image that `shard` could read.

    Raises:
        InputError: it cannot be read any more.
    """
    from pseudolabel.images import load_image

    try:
        return load_image(plan.images_root, file_name, rule=plan.pixel_rule)
    except RejectError as error:
        raise InputError(f"{file_name}: {error}; it was sound when `shard` read it") from None


def _check_space(folder: Path, size_bytes: int) -> None:
    import shutil

    free = shutil.disk_usage(folder).free
    if free < size_bytes:
        raise MachineError(
            f"{folder}: crops need {size_bytes / 2**30:.1f} GiB, {free / 2**30:.1f} are free; lower --max-objects"
        )


def _chosen(count: int, config: TrainTeacherConfig) -> list[int]:
    """All objects, or as many as are wanted, drawn by the seed."""
    import torch

    if count <= config.max_objects:
        return list(range(count))
    generator = torch.Generator().manual_seed(config.seed)
    return sorted(torch.randperm(count, generator=generator)[: config.max_objects].tolist())


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
    tables = ["manifest", *(f"candidates/{name}" for name in config.guides)]
    parts = [part for table in tables for part in sorted(run.table(table).glob("part-*.parquet"))]
    content = {
        "config": result_relevant(config),
        "weights": {name: file_sha256(path) for name, path in config.weight_files().items()},
        "tables": [read_footer(path).fingerprint for path in parts],
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]


def _usable(one: dict[str, Any]) -> bool:
    return not one["iscrowd"] and min(one["bbox_xywh"][2:]) >= _MIN_SIDE_PX


def _target(one: dict[str, Any]) -> "Target":
    from pseudolabel.fusion.candidates import Target

    x, y, width, height = (float(value) for value in one["bbox_xywh"])
    return Target(one["annotation_id"], one["category_id"], (x, y, width, height))
