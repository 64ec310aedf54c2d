"""Runs for tests of what looks at them: real images, boxes and manifests, pseudo labels and candidates by hand."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

import pseudolabel as pl
from pseudolabel import records, rle
from pseudolabel.masks import PixelMask, SoftMask, box_cells
from pseudolabel.pipelines.run.commit import Footer, commit_table, read_part
from pseudolabel.pipelines.run.paths import RunPaths

Row = dict[str, Any]
FIRST_ID = 1000  # of the annotations


@dataclass(frozen=True, slots=True)
class Made:
    """One object: where it is and what `fuse` is to have said of it."""

    box_xywh: tuple[int, int, int, int]
    class_name: str = "disc"
    score: float = 0.9
    decision: str = "keep"
    reason: str = "good_score"
    shrink: int = 0  # the mask is the box without so many pixels at its right side
    agreement: float | None = 0.8
    sources: tuple[str, ...] = ("colors", "semantic")


@dataclass(slots=True)
class MadeRun:
    """A run folder and what it was made of; ids of annotations count from `FIRST_ID`."""

    paths: RunPaths
    truth: Path  # the boxes as true masks
    ids: dict[str, list[int]] = field(default_factory=dict)


def make_run(
    folder: Path,
    images: dict[str, Sequence[Made]],
    *,
    size_hw: tuple[int, int] = (60, 80),
    shards: int = 2,
    pixels: Callable[[int], np.ndarray] | None = None,
) -> MadeRun:
    """A run whose images have these objects.

    Args:
        images: file name to objects.
        pixels: by the image's place; a gradient where None.
    """
    (folder / "images").mkdir(parents=True)
    for place, name in enumerate(images):
        made = pixels(place) if pixels else _gradient(size_hw)
        Image.fromarray(made).save(folder / "images" / name)
    boxes = folder / "boxes.json"
    content = _coco(images, size_hw)
    boxes.write_text(json.dumps(content))
    truth = folder / "truth.json"
    truth.write_text(json.dumps(_with_masks(content)))
    run = RunPaths(Path(pl.Run.create(folder / "run", images=folder / "images", boxes=boxes, shards=shards)))
    numbers = iter(range(FIRST_ID, FIRST_ID + sum(map(len, images.values()))))
    made_run = MadeRun(run, truth, {name: [next(numbers) for _ in objects] for name, objects in images.items()})
    write_labels(made_run, images, shards=shards)
    return made_run


def write_labels(made: MadeRun, images: dict[str, Sequence[Made]], *, shards: int = 2) -> None:
    """The tables of candidates and of pseudo labels, in place of those that are there."""
    categories = {name: number for number, name in enumerate(_class_names(images), 1)}
    for shard in range(shards):
        rows = read_part(made.paths.part("manifest", shard, shards)).to_pylist()
        manifest = [row for row in rows if row["annotation_id"] is None]  # others are refused annotations
        names = [row["image_key"] for row in manifest if row["status"] == "ok"]
        size_hw = {row["image_key"]: (row["height"], row["width"]) for row in manifest}
        pairs = [
            (name, number, one) for name in names for number, one in zip(made.ids[name], images[name], strict=True)
        ]
        pseudo = [_pseudo(name, number, one, size_hw[name], categories) for name, number, one in pairs]
        _commit(made.paths, "pseudo", "fuse", pseudo, records.PSEUDO, shard, shards)
        for source in sorted({source for _, _, one in pairs for source in one.sources}):
            found = [_candidate(name, number, one, source) for name, number, one in pairs if source in one.sources]
            _commit(made.paths, f"candidates/{source}", f"infer-{source}", found, records.CANDIDATES, shard, shards)


def many(count: int, *, seed: int = 0, size_hw: tuple[int, int] = (60, 80)) -> list[Made]:
    """Objects of three classes with all decisions, drawn at random."""
    random = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        width, height = (int(random.integers(10, side // 2)) for side in (size_hw[1], size_hw[0]))
        x, y = int(random.integers(0, size_hw[1] - width)), int(random.integers(0, size_hw[0] - height))
        score = float(random.uniform(0.3, 1))
        decision = "keep" if score > 0.8 else "review" if score > 0.5 else "box_only"
        reason = {"keep": "good_score", "review": "doubtful_score", "box_only": "low_score"}[decision]
        name = ("disc", "star", "ring")[int(random.integers(3))]
        agreement = float(random.uniform(0.3, 1))
        found.append(Made((x, y, width, height), name, score, decision, reason, int(random.integers(0, 5)), agreement))
    return found


def _gradient(size_hw: tuple[int, int]) -> np.ndarray:
    down, across = (np.linspace(40, 200, side).astype(np.uint8) for side in size_hw)
    return np.stack(np.broadcast_arrays(down[:, None], across[None], np.uint8(120)), axis=2)


def _class_names(images: dict[str, Sequence[Made]]) -> list[str]:
    return sorted({one.class_name for objects in images.values() for one in objects})


def _coco(images: dict[str, Sequence[Made]], size_hw: tuple[int, int]) -> Row:
    categories = {name: number for number, name in enumerate(_class_names(images), 1)}
    annotations: list[Row] = []
    for image_id, objects in enumerate(images.values(), 1):
        for one in objects:
            row = {"id": FIRST_ID + len(annotations), "image_id": image_id, "category_id": categories[one.class_name]}
            annotations.append(
                row | {"bbox": list(one.box_xywh), "area": one.box_xywh[2] * one.box_xywh[3], "iscrowd": 0}
            )
    rows = [
        {"id": number, "file_name": name, "height": size_hw[0], "width": size_hw[1]}
        for number, name in enumerate(images, 1)
    ]
    named = [{"id": number, "name": name} for name, number in categories.items()]
    return {"images": rows, "annotations": annotations, "categories": named}


def _with_masks(content: Row) -> Row:
    """The same with every box as a true mask."""
    found = []
    for row in content["annotations"]:
        x, y, width, height = row["bbox"]
        corners = [x, y, x + width, y, x + width, y + height, x, y + height]
        found.append(row | {"segmentation": [corners]})
    return content | {"annotations": found}


def _mask(one: Made, size_hw: tuple[int, int]) -> rle.Rle:
    x, y, width, height = one.box_xywh
    return rle.encode_crop(PixelMask(x, y, np.ones((height, width - one.shrink), bool)), size_hw)


def _pseudo(name: str, number: int, one: Made, size_hw: tuple[int, int], categories: dict[str, int]) -> Row:
    mask = _mask(one, size_hw)
    return {
        "image_key": name, "annotation_id": number, "category_id": categories[one.class_name], "segmentation": mask,
        "bbox_xywh": list(map(float, rle.bbox_xywh(mask))), "source_bbox_xywh": list(map(float, one.box_xywh)),
        "area": rle.area(mask), "iscrowd": False, "score": one.score, "candidates_used": len(one.sources),
        "sources": list(one.sources), "agreement": one.agreement, "decision": one.decision,
        "decision_reason": one.reason, "provenance_id": "made", **records.ok("fuse"),
    }  # fmt: skip


def _candidate(name: str, number: int, one: Made, source: str) -> Row:
    x, y, width, height = one.box_xywh
    grid = box_cells((x, y, x + width, y + height), (y + height, x + width))
    probability = np.full((grid.height, grid.width), 255, np.uint8)
    if source == "colors":
        probability[: grid.height // 2] = 0  # the lower half alone
    mask = SoftMask(grid, probability)
    return {
        "image_key": name, "annotation_id": number, "source": source, "box_xyxy": [x, y, x + width, y + height],
        "box_score": 0.7, "box_iou": 0.9, "mask": records.soft_mask_to_struct(mask), **records.ok(f"infer-{source}"),
    }  # fmt: skip


def _commit(run: RunPaths, table: str, stage: str, rows: list[Row], schema: pa.Schema, shard: int, shards: int) -> None:
    footer = Footer(stage, 1, "made", shard, shards, len(rows), len(rows), 0, versions={"pseudolabel": "made"})
    commit_table(records.table_from_rows(rows, schema), run.part(table, shard, shards), footer)
