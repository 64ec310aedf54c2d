"""Later rounds of the box-conditioned teacher: what the last round's network and the run's other sources agree on,
fused and fitted to the colours as `fuse` does it, is what the next round's network learns from, mask by mask as far as
its expected IoU goes.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, UInt8

from pseudolabel.candidates import Candidate, GivenBox, candidates_by_image
from pseudolabel.files import atomic_path
from pseudolabel.fusion.labels import LabelSettings, judged, settled_labels
from pseudolabel.fusion.options import FuseOptions
from pseudolabel.fusion.settings import label_settings
from pseudolabel.masks import Grid, resample
from pseudolabel.pipelines.planning.plan import Plan
from pseudolabel.pipelines.run.commit import read_part
from pseudolabel.pipelines.run.paths import RunPaths
from pseudolabel.pipelines.trainers.images import BoxedImage, load_pixels
from pseudolabel.progress import Progress
from pseudolabel.teachers.base import Teacher, TeacherInput
from pseudolabel.teachers.mal.crops import CANVAS_CELLS, canvas_extent, claimed

VIEWS = 6
DOUBTED, TRUSTED = 0.45, 0.8  # expected IoU of masks that teach nothing, and of those that teach fully
_IMAGES_AT_ONCE = 16  # their objects fill the batches


@dataclass(frozen=True, slots=True)
class Targets:
    """Soft masks over the canvases of all objects, how much each is believed, and what others cover of the canvases."""

    masks: np.ndarray  # uint8 (n, CANVAS_CELLS, CANVAS_CELLS), 255 = certain
    scores: np.ndarray  # float32 (n,), 0 where no source had a mask
    claims: np.ndarray  # uint8 (n, CANVAS_CELLS, CANVAS_CELLS), what the other objects' masks cover


def fused_targets(
    run: RunPaths,
    plan: Plan,
    images: Sequence[BoxedImage],
    teacher: Teacher | None,
    guides: Sequence[str],
    path: Path,
) -> Targets:
    """The targets of every object, from `path` where an earlier, stopped call has written them.

    Args:
        teacher: the last round's, None before there is one.
        guides: candidate tables beside the teacher, such as `semantic`.
        path: an .npy file; scores and claims lie beside it.
    """
    scores, claims = path.with_suffix(".scores.npy"), path.with_suffix(".claims.npy")
    if not all(file.exists() for file in (path, claims, scores)):
        count = sum(len(image.objects) for image in images)
        found, place = np.zeros(count, dtype=np.float32), 0
        with atomic_path(path) as own, atomic_path(claims) as others:
            masks, covered = _planes(own, count), _planes(others, count)
            for image, labels in zip(images, _labels(run, plan, images, teacher, guides), strict=True):
                some = slice(place, place := place + len(image.objects))
                masks[some], found[some] = labels
                covered[some] = _claims(image, masks[some])
            masks.flush()
            covered.flush()
        with atomic_path(scores) as temporary, temporary.open("wb") as stream:
            np.save(stream, found)
    return Targets(np.load(path, mmap_mode="r"), np.load(scores), np.load(claims, mmap_mode="r"))


def _planes(path: Path, count: int) -> "np.memmap[Any, np.dtype[np.uint8]]":
    """A new file of as many planes, one over every object's canvas."""
    return np.lib.format.open_memmap(path, "w+", np.uint8, (count, CANVAS_CELLS, CANVAS_CELLS))


def _claims(image: BoxedImage, masks: UInt8[np.ndarray, "n T T"]) -> UInt8[np.ndarray, "n T T"]:
    """What the masks of an image's other objects cover of each canvas."""
    boxes = torch.tensor(image.boxes_xyxy)
    return claimed(boxes, canvas_extent(boxes), torch.from_numpy(masks).float() / 255).numpy()


def _labels(
    run: RunPaths,
    plan: Plan,
    images: Sequence[BoxedImage],
    teacher: Teacher | None,
    guides: Sequence[str],
) -> Iterator[tuple[UInt8[np.ndarray, "n T T"], Float32[np.ndarray, " n"]]]:
    """Masks and scores of every image's objects."""
    others = _Guides(run, plan, guides)
    settings = _settings()
    with Progress("train-teacher: labels of the next round", len(images), unit="image") as progress:
        for first in range(0, len(images), _IMAGES_AT_ONCE):
            some = images[first : first + _IMAGES_AT_ONCE]
            asked = [TeacherInput(load_pixels(plan, image.file_name), image.objects) for image in some]
            found = [[] for _ in some] if teacher is None else teacher.predict(asked)
            for image, one, own in zip(some, asked, found, strict=True):
                yield _image_labels(image, one.pixels, own + others.of(image), settings)
            progress.advance(len(some))


def _image_labels(
    image: BoxedImage, pixels: np.ndarray, candidates: Sequence[Candidate], settings: LabelSettings
) -> tuple[UInt8[np.ndarray, "n T T"], Float32[np.ndarray, " n"]]:
    """A soft mask over its canvas, as `fuse` makes it, and how far it is believed, for every object of an image."""
    size_hw = (pixels.shape[0], pixels.shape[1])
    labels = settled_labels(image.objects, candidates, size_hw, settings, pixels)
    rows = judged(labels, size_hw, settings)
    masks = np.zeros((len(labels), CANVAS_CELLS, CANVAS_CELLS), dtype=np.uint8)
    scores = np.zeros(len(labels), dtype=np.float32)
    for place, (label, row, target) in enumerate(zip(labels, rows, image.objects, strict=True)):
        if label.fused is None or label.verdict is not None:
            continue
        soft = resample(label.fused.probability, label.window, _canvas_grid(target))
        masks[place], scores[place] = np.rint(soft * 255).astype(np.uint8), belief(row["score"])
    return masks, scores


def belief(score: float) -> float:
    """How much a mask of this expected IoU teaches, in [0, 1]: what is probably wrong would be learned, and stay."""
    return min(max((score - DOUBTED) / (TRUSTED - DOUBTED), 0.0), 1.0)


def _settings() -> LabelSettings:
    """How sources are fused between two rounds.

    Other than beside the last teacher, guides keep their full weight here in every round: the next network begins from
    the start again, so that what it hears of them is not yet in it.
    """
    return label_settings(FuseOptions())


def _canvas_grid(target: GivenBox) -> Grid:
    left, top, right, bottom = canvas_extent(torch.tensor([target.box_xyxy]))[0].tolist()
    return Grid(left, top, (right - left) / CANVAS_CELLS, (bottom - top) / CANVAS_CELLS, CANVAS_CELLS, CANVAS_CELLS)


class _Guides:
    """The candidates in some tables, shard by shard."""

    def __init__(self, run: RunPaths, plan: Plan, names: Sequence[str]) -> None:
        self._run, self._plan, self._names = run, plan, names
        self._shard = -1
        self._found: dict[str, list[Candidate]] = {}

    def of(self, image: BoxedImage) -> list[Candidate]:
        if image.shard != self._shard and self._names:
            parts = [self._run.part(f"candidates/{name}", image.shard, self._plan.num_shards) for name in self._names]
            self._shard, self._found = image.shard, candidates_by_image([read_part(part) for part in parts])
        return self._found.get(image.key, [])
