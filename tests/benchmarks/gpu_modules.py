"""What each module of BoxTeacher and BoxSeg brings in training, on drawn scenes that are hard; rows for gpu_day.py.

A scene has 20 objects that hide each other, enlarged so that the finest grids resolve them, and colours count as alike
from the paper's 0.1 on. For each seed one BoxInst is trained, and all settings with a moving average go on from its
very weights, so that the difference of two of them is not that of two starts; `boxinst` itself goes on as long. The
projection alone and the true masks learn from the start for as many steps as both phases have.
"""

import functools
import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from box_teachers import CPU, SETTINGS, Data, Loader, Picture, _of_use, figures, iou_figures, teacher_of

from pseudolabel import rle
from pseudolabel.boxes import xyxy_to_xywh
from pseudolabel.condinst.network import CondInst
from pseudolabel.metrics.mask_iou import box_mask
from pseudolabel.metrics.objects import Prediction, TrueObject
from pseudolabel.pipelines.demo.scenes import CLASSES, draw_scene
from pseudolabel.teachers.condinst.infer import InputSize
from pseudolabel.training.config import FitConfig
from pseudolabel.training.fit import fit

WARM = "warm start"
FROM_THE_START = ("projection", "full")
# rows that are compared seed by seed: with a module, and without it
PAIRS = (
    ("boxinst", "projection"),
    ("boxteacher", "boxinst"),
    ("boxseg-no-qam", "boxteacher"),
    ("boxseg-bqr", "boxseg-no-qam"),
    ("boxseg-bqr-qmf", "boxseg-bqr"),
    ("boxseg-bqr-qmf-mqs", "boxseg-bqr-qmf"),
    ("boxseg-bqr-qmf-mqs", "boxseg-no-qam"),
    ("boxseg", "boxseg-bqr-qmf-mqs"),
    ("boxseg-quality-random", "boxseg-bqr-qmf-mqs"),
    ("boxseg-random-overlapping", "boxseg-bqr-qmf-mqs"),
    ("boxseg-random-random", "boxseg-bqr-qmf-mqs"),
    ("full", "boxseg"),
)
COMMON = {"class_agnostic": False, "bottom_px": 0, "least_similarity": 0.1, "finest_px": 32}
RISEN = {"pairwise_warmup": 0.0, "teacher_from": 0.0, "teacher_warmup": 0.2}  # what goes on from the warm start
SCENE_PX, OBJECTS = 256, 20
TRAIN_SEED, VAL_SEED = 11, 12
LEAST_SIDE_PX = 4


@dataclass(frozen=True)
class Course:
    """How all rows of a table are trained; `scratch` keeps what a later call goes on from."""

    device: str
    scratch: str
    warm_steps: int = 1200
    steps: int = 1200
    batch_size: int = 8
    short_px: int = 512
    window_px: int = 256
    train: int = 300
    val: int = 60
    weights: str = "none"
    shape: tuple[tuple[str, Any], ...] = tuple(CPU.items())
    precision: str = "fp32"

    @property
    def on(self) -> str:
        """What the table says of itself."""
        steps = f"{self.warm_steps} + {self.steps} steps of {self.batch_size} at {self.short_px} px"
        scenes = f"{self.train} drawn scenes of {OBJECTS} objects, {self.val} others to measure on"
        shape = ", ".join(f"{name} {value}" for name, value in self.shape)
        return f"{scenes}; {steps}, windows of {self.window_px} px, {self.precision}; {shape}"


@functools.cache
def drawn(course: Course) -> Data:
    """The scenes, drawn once per process."""
    train = [_picture(TRAIN_SEED, number) for number in range(course.train)]
    val = [_picture(VAL_SEED, number) for number in range(course.val)]
    return Data(train, val, list(range(1, len(CLASSES) + 1)))


def _picture(seed: int, number: int) -> Picture:
    scene = draw_scene(seed * 1_000_003 + number, (SCENE_PX, SCENE_PX), count=OBJECTS)
    rows = []
    for place, (mask, label, box) in enumerate(zip(scene.masks, scene.labels, scene.boxes_xyxy(), strict=True)):
        x, y, width, height = (float(value) for value in xyxy_to_xywh(np.array(box, dtype=float)))
        if min(width, height) >= LEAST_SIDE_PX:
            area = int(mask.sum())
            box_xywh = (x, y, width, height)
            rows.append(TrueObject(place + 1, number + 1, label + 1, rle.encode(mask), area, area, box_xywh, False))
    return Picture(f"{number:06d}", scene.image, tuple(rows))


@functools.cache
def loader(course: Course, *, with_masks: bool) -> Loader:
    data = drawn(course)
    return Loader(data, _size(course), masks_of=data.category_ids if with_masks else ())


def _size(course: Course) -> InputSize:
    return InputSize(short_px=course.short_px, long_px=2 * course.short_px)


def warm_start(course: Course, seed: int) -> Path:
    """The file of BoxInst's weights from which a seed's settings go on; trained where it is not there."""
    path = Path(course.scratch) / f"warm-{seed}.pt"
    if not path.exists():
        method = _trained(course, "boxinst", seed, course.warm_steps, {}, start=None)
        torch.save(method.network.state_dict(), path.with_suffix(".part"))
        path.with_suffix(".part").replace(path)
        shutil.rmtree(_folder(course, WARM, seed))
    return path


def module_row(course: Course, setting: str, seed: int) -> dict[str, Any]:
    """A trained setting's figures; a training that was cut off goes on from its last checkpoint."""
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // 8))
    before = time.perf_counter()
    if setting == WARM:
        warm_start(course, seed)
        return {"setting": setting, "seed": seed, "wall_s": time.perf_counter() - before}
    if setting in FROM_THE_START:
        method = _trained(course, setting, seed, course.warm_steps + course.steps, {}, start=None)
    else:
        method = _trained(course, setting, seed, course.steps, RISEN, start=warm_start(course, seed))
    data = drawn(course)
    found = figures(teacher_of(method.trained_network(), _size(course), course.device, data), data)
    shutil.rmtree(_folder(course, setting, seed))
    return {"setting": setting, "seed": seed, **found, "wall_s": time.perf_counter() - before}


def _folder(course: Course, setting: str, seed: int) -> Path:
    return Path(course.scratch) / f"{setting}-{seed}"


def _trained(
    course: Course, setting: str, seed: int, steps: int, changes: dict[str, Any], *, start: Path | None
) -> Any:
    method_class, config_class, own = SETTINGS[setting]
    weights = {"backbone_weights": course.weights, "window_px": course.window_px, "image_px": course.short_px}
    config = config_class(**_of_use(config_class, dict(course.shape) | COMMON | own | changes | weights))
    torch.manual_seed(seed)
    network = CondInst(config, config.detector_classes(len(drawn(course).category_ids)))
    if start is not None:
        network.load_state_dict(torch.load(start, map_location="cpu", weights_only=True))
    method = method_class(network, config)  # its moving average starts as the network is
    load = loader(course, with_masks=setting == "full")
    settings = FitConfig(
        steps=steps,
        batch_size=course.batch_size,
        seed=seed,
        device=course.device,
        checkpoint_every=max(1, min(steps, 200)),
        precision=course.precision,
    )
    folder = _folder(course, WARM if start is None and setting == "boxinst" else setting, seed)
    fit(method, load, len(load.items), folder, settings)
    return method


def box_row(course: Course) -> dict[str, Any]:
    """The given box as the mask."""
    objects = [row for picture in drawn(course).val for row in picture.objects]
    masks = [
        Prediction(row.annotation_id, row.image_id, row.category_id, box_mask(row.box_xywh, (SCENE_PX,) * 2), 1.0, None)
        for row in objects
    ]
    return {"setting": "box", "seed": None, **iou_figures(objects, masks)}


def gains(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of every module, what the rows with it have over those without it, seed by seed."""
    of = {(row["setting"], row["seed"]): row for row in rows}
    found = []
    for setting, without in PAIRS:
        seeds = [seed for name, seed in of if name == setting and (without, seed) in of]
        if not seeds:
            continue
        row: dict[str, Any] = {"setting": setting, "over": without, "seeds": len(seeds)}
        for figure in ("mean_iou", "ap_any_class", "box_ap_any_class", "ap"):
            steps = [of[setting, seed][figure] - of[without, seed][figure] for seed in seeds]
            row[figure] = float(np.mean(steps))
            row[f"{figure}_least"], row[f"{figure}_most"] = min(steps), max(steps)
        found.append(row)
    return found
