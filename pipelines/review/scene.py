"""One object with all that is known of it: its image's window, its mask, every source's candidates, its neighbours."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pseudolabel.boxes import iou_matrix
from pseudolabel.candidates import Candidate, GivenBox, ManifestImage, candidates_by_image, usable_images
from pseudolabel.errors import InputError
from pseudolabel.masks import PixelMask, SoftMask, pixel_window, resample
from pseudolabel.metrics.mask_iou import rle_iou
from pseudolabel.pipelines.planning.plan import read_plan
from pseudolabel.pipelines.review.queue import Queued
from pseudolabel.pipelines.review.view import Window, counts_of
from pseudolabel.pipelines.run.commit import read_part
from pseudolabel.pipelines.run.paths import RunPaths
from pseudolabel.reviews import mask_digest
from pseudolabel.rle import Rle, area, decode_crop, encode_crop

FUSED = "fused"
_SAME_IOU = 0.97  # candidates that are nearer to one that is shown say nothing new
_PER_SOURCE = 3
_MOST_CHOICES = 9
_MOST_NEIGHBOURS = 60
Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Choice:
    """A mask that can be taken."""

    origin: str  # `fused`, or the name of a source
    score: float
    mask: Rle


@dataclass(frozen=True, slots=True)
class Neighbour:
    """Another object that can be seen in the window."""

    category_id: int
    mask: Rle


@dataclass(frozen=True, slots=True)
class Scene:
    """What a person sees of one object; the first choice is the fused mask."""

    queued: Queued
    image: ManifestImage
    window: Window
    box_xyxy: tuple[float, float, float, float]
    choices: tuple[Choice, ...]
    neighbours: tuple[Neighbour, ...]
    decision: str
    reason: str

    @property
    def seen(self) -> str:
        """The digest of the fused mask."""
        return mask_digest(self.choices[0].mask)

    def as_json(self, names: dict[int, str]) -> Row:
        """For the page; masks on the window's cells, coordinates in cells."""
        window = self.window
        scale_x, scale_y = window.columns / window.width, window.rows / window.height
        left, top, right, bottom = self.box_xyxy
        return {
            "id": self.queued.annotation_id,
            "file": self.image.file_name,
            "size": list(self.image.size_hw),
            "category_id": self.queued.category_id,
            "class": names.get(self.queued.category_id, str(self.queued.category_id)),
            "score": self.queued.score,
            "decision": self.decision,
            "reason": self.reason,
            "columns": window.columns,
            "rows": window.rows,
            "pixels_per_cell": window.width / window.columns,
            "box": [
                (left - window.x0) * scale_x, (top - window.y0) * scale_y,
                (right - left) * scale_x, (bottom - top) * scale_y,
            ],
            "seen": self.seen,
            "choices": [
                {"origin": one.origin, "score": one.score, "counts": self._counts(one.mask)} for one in self.choices
            ],
            "neighbours": [
                {"class": names.get(one.category_id, ""), "counts": self._counts(one.mask)} for one in self.neighbours
            ],
        }  # fmt: skip

    def _counts(self, mask: Rle) -> list[int]:
        return counts_of(self.window.cells_of(decode_crop(mask)))


class Scenes:
    """The scenes of a run, read from its tables when they are asked for."""

    def __init__(self, run: RunPaths) -> None:
        self._run = run
        self._plan = read_plan(run)
        self._table = lru_cache(maxsize=6)(self._read)

    def scene(self, queued: Queued) -> Scene:
        """The scene of an object.

        Raises:
            InputError: a table of the run was made anew since the queue was.
        """
        rows = self._rows("pseudo", queued).to_pylist()
        own = next((row for row in rows if row["annotation_id"] == queued.annotation_id), None)
        images = usable_images(self._rows("manifest", queued))
        if own is None or not images or own["status"] != "ok":
            raise InputError(
                f"{queued.image_key}, annotation {queued.annotation_id}: fuse ran anew; start review again"
            )
        x, y, width, height = own["source_bbox_xywh"]
        box = (x, y, x + width, y + height)
        window = Window.around(_hull(box, own["bbox_xywh"]), images[0].size_hw)
        return Scene(
            queued, images[0], window, box, tuple(self._choices(queued, own, images[0], box)),
            tuple(_neighbours(rows, queued, window)), own["decision"] or "keep", own["decision_reason"] or "",
        )  # fmt: skip

    def _choices(
        self, queued: Queued, own: Row, image: ManifestImage, box: tuple[float, float, float, float]
    ) -> list[Choice]:
        target = GivenBox.from_xyxy(queued.annotation_id, queued.category_id, box)
        shown = [Choice(FUSED, queued.score, own["segmentation"])]
        counts: dict[str, int] = {}
        for one in sorted(self._candidates(queued, target), key=lambda one: (one.source, -one.box_score)):
            mask = painted(one.mask, image.size_hw)
            new = area(mask) > 0 and all(rle_iou(mask, other.mask) < _SAME_IOU for other in shown)
            if new and counts.get(one.source, 0) < _PER_SOURCE and len(shown) < _MOST_CHOICES:
                counts[one.source] = counts.get(one.source, 0) + 1
                shown.append(Choice(one.source, one.box_score, mask))
        return shown

    def _candidates(self, queued: Queued, target: GivenBox) -> Iterator[Candidate]:
        """Those that were made from the object's box, and of those that may serve any object those that overlap it."""
        for table in self._run.candidate_tables():
            found = candidates_by_image([self._rows(table, queued)]).get(queued.image_key, [])
            for one in found:
                free = one.annotation_id is None and _box_iou(one.box_xyxy, target.box_xyxy) >= 0.5
                if free or one.annotation_id == target.annotation_id:
                    yield one

    def _rows(self, table: str, queued: Queued) -> pa.Table:
        """The rows of an object's image."""
        whole = self._table(table, queued.shard)
        return whole.filter(pc.equal(whole["image_key"], queued.image_key))

    def _read(self, table: str, shard: int) -> pa.Table:
        return read_part(self._run.part(table, shard, self._plan.num_shards))


def painted(mask: SoftMask, size_hw: tuple[int, int]) -> Rle:
    """The pixels of the image where a soft mask is above one half."""
    window = pixel_window(mask.grid.extent_xyxy, size_hw)
    probability = resample(mask.probability.astype(np.float32) / 255, mask.grid, window)
    return encode_crop(PixelMask(int(window.x0), int(window.y0), probability > 0.5), size_hw)


def _neighbours(rows: Sequence[Row], queued: Queued, window: Window) -> Iterator[Neighbour]:
    others = [row for row in rows if row["status"] == "ok" and row["annotation_id"] != queued.annotation_id]
    seen = [row for row in others if not row["iscrowd"] and _meets(row["bbox_xywh"], window)]
    for row in seen[:_MOST_NEIGHBOURS]:
        yield Neighbour(row["category_id"], row["segmentation"])


def _meets(bbox_xywh: Sequence[float], window: Window) -> bool:
    x, y, width, height = bbox_xywh
    beside = x >= window.x0 + window.width or x + width <= window.x0
    return not (beside or y >= window.y0 + window.height or y + height <= window.y0)


def _hull(box_xyxy: Sequence[float], bbox_xywh: Sequence[float]) -> tuple[float, float, float, float]:
    """The least rectangle around the given box and the mask."""
    x, y, width, height = bbox_xywh
    if not width * height:
        return (box_xyxy[0], box_xyxy[1], box_xyxy[2], box_xyxy[3])
    return (min(box_xyxy[0], x), min(box_xyxy[1], y), max(box_xyxy[2], x + width), max(box_xyxy[3], y + height))


def _box_iou(one: Sequence[float], other: Sequence[float]) -> float:
    return float(iou_matrix(np.array([one], dtype=np.float64), np.array([other], dtype=np.float64))[0, 0])
