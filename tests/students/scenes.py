"""Small drawn scenes as samples, for the tests of students."""

from typing import Any

import numpy as np

from pseudolabel import rle
from pseudolabel.pipelines.demo.scenes import Scene, draw_scene
from pseudolabel.students.data import Sample, make_sample
from pseudolabel.students.labels import LabelledImage, LabelledObject

CLASSES = ("disc", "bar")


def drawn(seed: int, side_px: int = 96) -> Scene:
    return draw_scene(seed, (side_px, side_px), classes=CLASSES, count=4)


def labelled(scene: Scene, name: str = "drawn.png", **changes: Any) -> LabelledImage:
    """The true labels of a scene; `changes` go to every object."""
    objects = []
    for mask, label, box in zip(scene.masks, scene.labels, scene.boxes_xyxy(), strict=True):
        place = 0 if label == 0 else 1
        values = {"label": place, "box_xyxy": tuple(map(float, box)), "role": "mask", "mask": rle.encode(mask)}
        objects.append(LabelledObject(**{**values, **changes}))
    return LabelledImage(name, 1, scene.semantic.shape, tuple(objects))


def sample(seed: int, side_px: int = 96, **changes: Any) -> Sample:
    scene = drawn(seed, side_px)
    return make_sample(labelled(scene, f"drawn-{seed}.png", **changes), scene.image)


def mean_best_iou(found: np.ndarray, true: np.ndarray) -> float:
    """Mean over the true masks of the best IoU with a found one."""
    if not len(found):
        return 0.0
    found, true = found.reshape(len(found), -1).astype(float), true.reshape(len(true), -1).astype(float)
    shared = true @ found.T
    union = true.sum(1)[:, None] + found.sum(1)[None] - shared
    return float((shared / union).max(axis=1).mean())
