"""The crops of a run's objects: cut once into one file on disk, then read by number."""

import shutil
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from pseudolabel.errors import MachineError
from pseudolabel.files import atomic_path
from pseudolabel.pipelines.planning.plan import Plan
from pseudolabel.pipelines.trainers.images import BoxedImage, load_pixels
from pseudolabel.pipelines.trainers.mal_rounds import Targets
from pseudolabel.progress import tracked
from pseudolabel.teachers.mal.crops import CropBatch, cut_canvases, neighbour_boxes
from pseudolabel.training.leftovers import mark_in_use, sweep_abandoned
from pseudolabel.training.processes import is_first_process, wait_for_all

_LOOK_S = 0.5


class Canvases:
    """All objects of a run with their canvases in one file on disk, cut once, read by number."""

    def __init__(self, folder: Path, plan: Plan, images: Sequence[BoxedImage], side_px: int) -> None:
        boxes = [torch.tensor(image.boxes_xyxy) for image in images]
        self._boxes = torch.cat(boxes)
        near = [
            neighbour_boxes(one, torch.tensor(image.category_ids)) for one, image in zip(boxes, images, strict=True)
        ]
        self._others, self._rivals = (torch.cat(parts) for parts in zip(*near, strict=True))
        sizes = [
            torch.tensor([image.size_hw[::-1]], dtype=torch.float32).expand(len(image.objects), 2) for image in images
        ]
        self._sizes = torch.cat(sizes)
        self._names = [image.file_name for image in images for _ in image.objects]
        self.targets: Targets | None = None  # what an earlier round found
        self._path = folder / f"canvases-{side_px}.u8"
        self._mark = mark_in_use(folder)
        sweep_abandoned(folder.parent, "canvases-*.u8")
        self._pixels = self._mapped(plan, images, side_px)

    def __len__(self) -> int:
        return len(self._names)

    def load(self, places: Sequence[int]) -> CropBatch:
        """The batch of these objects."""
        index = torch.tensor(list(places))
        canvas = torch.from_numpy(self._pixels[list(places)])
        names = tuple(self._names[place] for place in places)
        others, rivals = self._others[index], self._rivals[index]
        batch = CropBatch(canvas, self._boxes[index], others, rivals, self._sizes[index], names)
        if self.targets is None:
            return batch
        masks, scores = self.targets.masks[list(places)], self.targets.scores[list(places)]
        claims = torch.from_numpy(self.targets.claims[list(places)])
        return replace(batch, masks=torch.from_numpy(masks), scores=torch.from_numpy(scores), claims=claims)

    def close(self) -> None:
        """Remove the file; the training is done, in every process."""
        del self._pixels
        self._mark.unlink(missing_ok=True)
        wait_for_all()
        if is_first_process():
            self._path.unlink(missing_ok=True)

    def _mapped(self, plan: Plan, images: Sequence[BoxedImage], side_px: int) -> np.ndarray:
        """The canvases of an earlier, stopped call, or new ones, which the first of several processes cuts for all."""
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


def _fill(file: np.ndarray, plan: Plan, images: Sequence[BoxedImage], side_px: int) -> None:
    place = 0
    for image in tracked(images, "train-teacher: crops", unit="image"):
        pixels = load_pixels(plan, image.file_name)
        boxes = torch.tensor(image.boxes_xyxy)
        file[place : place + len(boxes)] = cut_canvases(pixels, boxes, side_px).numpy()
        place += len(boxes)


def _check_space(folder: Path, size_bytes: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < size_bytes:
        raise MachineError(
            f"{folder}: crops need {size_bytes / 2**30:.1f} GiB, {free / 2**30:.1f} are free; lower --max-objects"
        )
