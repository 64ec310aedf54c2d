"""The objects of the gallery as compact JSON: a small picture of each, and its masks at the picture's resolution."""

import base64
import io
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image

from pseudolabel import rle
from pseudolabel.boxes import xywh_to_xyxy
from pseudolabel.candidates import Candidate
from pseudolabel.errors import InputError, RejectError
from pseudolabel.pipelines.look.candidates import best_of_each_source
from pseudolabel.pipelines.look.choice import Chosen
from pseudolabel.pipelines.look.rows import FusedRun
from pseudolabel.pipelines.look.tally import reasons_of
from pseudolabel.records import expected_iou
from pseudolabel.report.overlay import DrawnObject, Frame, Mask, Window, square_around

Row = dict[str, Any]
_PICTURE_PX = 384  # the longest side of an object's picture
_MOST_BYTES = 16 << 20  # of all pictures and masks; the page shall not exceed 20 MB
Truth = Callable[[Row, tuple[int, int]], rle.Rle | None]
Pixels = Bool[np.ndarray, "h w"]


@dataclass(frozen=True, slots=True)
class Gallery:
    """What is shown, and what was left out."""

    objects: list[Row]
    left_out: int  # for the size of the page
    unreadable: list[str]  # images that could not be opened now
    overlaps: dict[tuple[str, str], list[float]]  # IoU of two layers of one object, of evenly drawn objects


def make_gallery(fused: FusedRun, chosen: Sequence[Chosen], truth: Truth) -> Gallery:
    """The objects with their pictures, in the order in which they were chosen; every image is opened once."""
    made: dict[int, Row] = {}
    unreadable: list[str] = []
    overlaps: dict[tuple[str, str], list[float]] = defaultdict(list)
    total_bytes = 0
    for shard, key, places in _by_image(chosen):
        file_name = fused.file_names(shard)[key]
        candidates = fused.candidates(shard, {chosen[place].row["annotation_id"] for place in places} - {None})
        try:
            pixels = fused.pixels(file_name)
        except (RejectError, InputError) as error:
            unreadable.append(f"{file_name}: {error}")
            continue
        for place in places:
            one = chosen[place]
            layers = _layers(one.row, candidates.get(one.row["annotation_id"], ()), truth, pixels.shape[:2])
            made[place], masks = _object(fused, one, file_name, pixels, layers)
            total_bytes += len(made[place]["img"]) + sum(len(layer["rle"]) for layer in made[place]["layers"])
            if one.even:
                _compare(masks, overlaps)
    objects, left_out = _within(made, total_bytes)
    return Gallery(objects, left_out, unreadable, dict(overlaps))


def _within(made: dict[int, Row], total_bytes: int) -> tuple[list[Row], int]:
    """The objects in their order; the last ones are left out where they are too much for one page."""
    objects = [made[place] for place in sorted(made)]
    kept = len(objects)
    while kept and total_bytes > _MOST_BYTES:
        kept -= 1
        total_bytes -= len(objects[kept]["img"]) + sum(len(layer["rle"]) for layer in objects[kept]["layers"])
    return objects[:kept], len(objects) - kept


def _by_image(chosen: Sequence[Chosen]) -> Iterator[tuple[int, str, list[int]]]:
    places: dict[tuple[int, str], list[int]] = defaultdict(list)
    for place, one in enumerate(chosen):
        places[one.shard, one.row["image_key"]].append(place)
    yield from ((shard, key, places[shard, key]) for shard, key in sorted(places))


def _layers(
    row: Row, candidates: Sequence[Candidate], truth: Truth, size_hw: tuple[int, int]
) -> Iterator[tuple[str, float | None, Mask]]:
    """Name, score and mask of all that can be switched between: the fused one, each source's best, the true one."""
    yield "fused", expected_iou(row), row["segmentation"]
    for one in best_of_each_source(candidates):
        yield one.source, one.box_score, one.mask
    true_mask = truth(row, size_hw)
    if true_mask is not None:
        yield "truth", None, true_mask


def _object(
    fused: FusedRun, one: Chosen, file_name: str, pixels: UInt8[np.ndarray, "h w 3"], layers: Any
) -> tuple[Row, dict[str, Pixels]]:
    row = one.row
    given = row["source_bbox_xywh"] or row["bbox_xywh"]
    box = tuple(xywh_to_xyxy(np.array([given], dtype=np.float64))[0].tolist())
    window = _on_image(square_around(DrawnObject(None, box_xyxy=box)), pixels.shape[:2])
    frame = Frame.of(pixels, window, min(1.0, _PICTURE_PX / max(window[2] - window[0], window[3] - window[1])))
    drawn = [(name, score, _on_frame(frame, mask)) for name, score, mask in layers]
    made = {
        "id": row["annotation_id"],
        "file": file_name,
        "cls": fused.names[row["category_id"]],
        "score": round(expected_iou(row), 4),
        "decision": row["decision"],
        "reasons": reasons_of(row),
        "agreement": _rounded(row["agreement"]),
        "iou": _rounded(one.iou),
        "sources": row["sources"] or [],
        "area": row["area"],
        "even": one.even,
        "size": list(frame.size_hw),
        "box": [round(value, 1) for corner in (box[:2], box[2:]) for value in frame.point(*corner)],
        "img": _data_uri(frame.cut(pixels)),
        "layers": [
            {"name": name, "score": _rounded(score), "rle": rle.encode(mask)["counts"]} for name, score, mask in drawn
        ],
    }
    return made, {name: mask for name, _, mask in drawn}


def _on_image(window: Window, size_hw: tuple[int, int]) -> Window:
    height, width = size_hw
    left, top = min(max(window[0], 0), width - 1), min(max(window[1], 0), height - 1)
    return (left, top, max(left + 1, min(window[2], width)), max(top + 1, min(window[3], height)))


def _on_frame(frame: Frame, mask: Mask) -> Pixels:
    canvas: Pixels = np.zeros(frame.size_hw, dtype=bool)
    rows, columns, pixels = frame.mask(mask)
    canvas[rows, columns] = pixels
    return canvas


def _compare(masks: dict[str, Pixels], overlaps: dict[tuple[str, str], list[float]]) -> None:
    names = list(masks)
    for place, first in enumerate(names):
        for second in names[place + 1 :]:
            both = np.count_nonzero(masks[first] & masks[second])
            either = np.count_nonzero(masks[first] | masks[second])
            overlaps[first, second].append(both / either if either else 0.0)


def _data_uri(pixels: UInt8[np.ndarray, "h w 3"]) -> str:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format="JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode("ascii")


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
