"""Masks that were corrected in another program, as answers of a review."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args

from pseudolabel.brought.base import KnownRun
from pseudolabel.brought.match import Matched, match_masks
from pseudolabel.brought.read import read_masks
from pseudolabel.errors import InputError
from pseudolabel.masks import PixelMask
from pseudolabel.metrics.mask_iou import rle_iou
from pseudolabel.pipelines.planning.plan import read_plan
from pseudolabel.pipelines.review.session import now
from pseudolabel.pipelines.run.brought import known_by
from pseudolabel.pipelines.run.commit import read_part
from pseudolabel.pipelines.run.paths import RunPaths
from pseudolabel.records import expected_iou
from pseudolabel.reviews import Answer, AnswerFile, Shown, mask_digest, settled
from pseudolabel.rle import Rle, area, encode_crop

ORIGIN = "imported"
SAME_IOU = 0.98  # with the fused mask: polygons and back move an outline as much
_LEAST_BOX_IOU = 0.5
Row = dict[str, Any]
LeftOut = Literal["unchanged", "empty", "not_fused", "of_no_object"]
_LEFT_OUT: tuple[LeftOut, ...] = get_args(LeftOut)


def take_in(run: RunPaths, path: Path, reviewer: str) -> Row:
    """The masks of a COCO file that differ from the fused ones, as accepted; counts of what became of all `masks`.

    Keys: `taken_in`, `known` (this reviewer's answers already), `unchanged`, `empty`, `not_fused` (of an object that
    has no fused mask), `of_no_object`; and `file, run, matched_by`. Masks find their objects by annotation id where
    the file kept the run's or its source's, else by their overlap with the boxes.

    Raises:
        InputError: a mask is damaged, or none is of an object of this run.
    """
    known, brought = _known(run), list(read_masks(path))
    matching = match_masks(brought, known, min_iou=_LEAST_BOX_IOU)
    if not matching.matched:
        raise InputError(f"{path}: not one of its {len(brought)} masks is of an object of {run.root}")
    file = AnswerFile(run.reviews / f"{reviewer}.jsonl")
    counts: Counter[str] = Counter(of_no_object=len(brought) - len(matching.matched))
    try:
        for said in _answers(run, matching.matched, reviewer):
            counts[said if isinstance(said, str) else "taken_in" if _take(file, said) else "known"] += 1
    finally:
        file.close()
    told = {"file": str(file.path), "run": str(run.root), "matched_by": matching.by, "masks": len(brought)}
    return told | {name: counts[name] for name in ("taken_in", "known", *_LEFT_OUT)}


def _known(run: RunPaths) -> KnownRun:
    shards = read_plan(run).num_shards
    return known_by([read_part(run.part("manifest", shard, shards)) for shard in range(shards)])


def _answers(run: RunPaths, matched: list[Matched], reviewer: str) -> Iterator[Answer | LeftOut]:
    """An answer for each mask that is another than the fused one of its object; why it is none for the others."""
    fused = _fused(run)
    for one in matched:
        shown = None if one.target is None else fused.get(one.target.annotation_id)
        if one.target is None or one.target.annotation_id is None:
            yield "of_no_object"
        elif shown is None:
            yield "not_fused"
        elif not area(mask := _rle(one)):
            yield "empty"
        elif rle_iou(mask, shown.mask) >= SAME_IOU:
            yield "unchanged"
        else:
            category = one.brought.category_id
            yield Answer(
                one.target.annotation_id, one.image.key, "accept", now(), reviewer, mask=mask, origin=ORIGIN,
                category_id=category if category != one.target.category_id else None, seen=mask_digest(shown.mask),
                shown=shown,
            )  # fmt: skip


def _rle(one: Matched) -> Rle:
    mask = one.brought.paint(one.image.size_hw)
    if not isinstance(mask, PixelMask):
        raise InputError(f"{one.brought.where}: probabilities are no corrected mask; bring them by  add-candidates")
    return encode_crop(mask, one.image.size_hw)


def _fused(run: RunPaths) -> dict[int | None, Shown]:
    shards = read_plan(run).num_shards
    columns = ["annotation_id", "segmentation", "score", "calibrated_iou", "decision"]
    parts = [run.part("pseudo", shard, shards) for shard in range(shards)]
    missing = [part for part in parts if not part.exists()]
    if missing:
        raise InputError(f"{missing[0]} is missing; run  pseudolabel fuse {run.typed}")
    rows = (row for part in parts for row in read_part(part, columns).to_pylist())
    return {
        row["annotation_id"]: Shown(row["segmentation"], expected_iou(row), row["decision"] or "keep")
        for row in rows
        if row["segmentation"] is not None
    }


def _take(file: AnswerFile, answer: Answer) -> bool:
    """Whether the answer is a new one: a file that is taken in again changes nothing."""
    there = settled(file.answers).get(answer.annotation_id)
    if there is not None and there.mask == answer.mask:
        return False
    file.append(answer)
    return True
