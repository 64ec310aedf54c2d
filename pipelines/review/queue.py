"""In which order people look: where a look buys most comes first.

What a look can buy for an object is how far its mask is expected to be from the truth, 1 - score. Objects of a class
that has been looked at often buy less than the first ones of another: the k-th of a class counts `k ** -BALANCE`.
Large objects teach a student more pixels: `area ** AREA`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pseudolabel.errors import InputError
from pseudolabel.pipelines.run.commit import read_part
from pseudolabel.pipelines.run.paths import RunPaths
from pseudolabel.pipelines.run.plan import read_plan

BALANCE = 0.1
AREA = 0.0
_COLUMNS = ["image_key", "annotation_id", "category_id", "score", "calibrated_iou", "area", "iscrowd", "status"]


@dataclass(frozen=True, slots=True)
class Queued:
    """An object that waits for a look."""

    annotation_id: int
    image_key: str
    shard: int
    category_id: int
    score: float  # expected IoU of its mask
    area_px: int


def queued_objects(run: RunPaths) -> list[Queued]:
    """Every object of a run's pseudo labels that has an annotation id, by shard and row.

    Raises:
        InputError: there are no pseudo labels, or the run has no boxes, so that nobody could say what an answer is of.
    """
    plan = read_plan(run)
    parts = [run.part("pseudo", shard, plan.num_shards) for shard in range(plan.num_shards)]
    missing = [part for part in parts if not part.exists()]
    if missing:
        raise InputError(f"{missing[0]} is missing ({len(missing)} of {len(parts)}); run  pseudolabel fuse {run.root}")
    if not plan.n_objects:
        raise InputError(f"{run.root}: answers go by annotation ids, and this run was made without boxes")
    return [one for shard, part in enumerate(parts) for one in _of_part(read_part(part, _COLUMNS), shard)]


def in_order(objects: Sequence[Queued], *, seed: int = 0) -> list[Queued]:
    """The objects, those first where a look buys most; equal ones in an order of the seed's."""
    if not objects:
        return []
    shuffled = [objects[place] for place in np.random.default_rng(seed).permutation(len(objects))]
    gain = np.array([(1 - one.score) * max(one.area_px, 1) ** AREA for one in shuffled])
    gain *= _turns(gain, np.array([one.category_id for one in shuffled])) ** -BALANCE
    return [shuffled[place] for place in np.argsort(-gain, kind="stable")]


def _turns(gain: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """For each object, how many-th it is in its class, by gain, from 1."""
    order = np.lexsort((-gain, classes))
    ordered = classes[order]
    first = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1]))
    turns = np.empty(len(gain))
    turns[order] = np.arange(len(gain)) - np.repeat(first, np.diff(np.append(first, len(gain)))) + 1
    return turns


def _of_part(table: pa.Table, shard: int) -> Iterator[Queued]:
    real = pc.and_(pc.equal(table["status"], "ok"), pc.invert(pc.fill_null(table["iscrowd"], False)))
    for row in table.filter(pc.and_(real, pc.is_valid(table["annotation_id"]))).to_pylist():
        score = row["score"] if row["calibrated_iou"] is None else row["calibrated_iou"]
        yield Queued(row["annotation_id"], row["image_key"], shard, row["category_id"], float(score), int(row["area"]))
