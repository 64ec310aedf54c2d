"""In which order people look: where a look buys most, without looking at the hopeless alone.

What a look can buy for an object is how far its mask is expected to be from the truth, 1 - score. `worst` takes that
order as it is. It corrects most pixels, and teaches least about what a score means: all looks are at low ones. The
default, `drawn`, draws objects by that weight among the `DOUBTFUL` share with the lowest scores, by the seed. Of one
class the k-th object that is drawn counts `k ** -BALANCE`, so that rare classes come early. The figures were chosen on
the true masks of coco-dev; docs/review.md has what they give there and elsewhere.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Float64, Int64

from pseudolabel.errors import InputError
from pseudolabel.pipelines.planning.plan import read_plan
from pseudolabel.pipelines.run.commit import read_part
from pseudolabel.pipelines.run.paths import RunPaths
from pseudolabel.records import expected_iou

DOUBTFUL = 0.6
BALANCE = 0.3
_LEAST_ERROR = 1e-6
_LAST = 1e-12  # of the weight of an object that is not doubtful
Order = Literal["drawn", "worst"]
_COLUMNS = ["image_key", "annotation_id", "category_id", "score", "calibrated_iou", "iscrowd", "status"]


@dataclass(frozen=True, slots=True)
class Queued:
    """An object that waits for a look."""

    annotation_id: int
    image_key: str
    shard: int
    category_id: int
    score: float  # expected IoU of its mask


def queued_objects(run: RunPaths) -> list[Queued]:
    """Every object of a run's pseudo labels that has an annotation id, by shard and row.

    Raises:
        InputError: there are no pseudo labels, or the run has no boxes, so that nobody could say what an answer is of.
    """
    plan = read_plan(run)
    parts = [run.part("pseudo", shard, plan.num_shards) for shard in range(plan.num_shards)]
    missing = [part for part in parts if not part.exists()]
    if missing:
        raise InputError(f"{missing[0]} is missing ({len(missing)} of {len(parts)}); run  pseudolabel fuse {run.typed}")
    if not plan.n_objects:
        raise InputError(f"{run.root}: answers go by annotation ids, and this run was made without boxes")
    return [one for shard, part in enumerate(parts) for one in _of_part(read_part(part, _COLUMNS), shard)]


def in_order(objects: Sequence[Queued], *, order: Order = "drawn", seed: int = 0) -> list[Queued]:
    """The objects in the order in which they are looked at; the same for the same scores and seed."""
    if not objects:
        return []
    known = sorted(objects, key=lambda one: one.annotation_id)
    error = np.maximum(1 - np.array([one.score for one in known]), _LEAST_ERROR)
    weight = error if order == "worst" else _drawn(error, seed)
    weight = weight * _turns(weight, np.array([one.category_id for one in known])) ** -BALANCE
    return [known[place] for place in np.argsort(-weight, kind="stable")]


def _drawn(error: Float64[np.ndarray, " n"], seed: int) -> Float64[np.ndarray, " n"]:
    """Weights whose order is that of draws without replacement, each by its error (Gumbel's trick)."""
    draws = error * np.exp(np.random.default_rng(seed).gumbel(size=error.size))
    return np.where(error >= np.quantile(error, 1 - DOUBTFUL), draws, _LAST * draws)


def _turns(weight: Float64[np.ndarray, " n"], classes: Int64[np.ndarray, " n"]) -> Float64[np.ndarray, " n"]:
    """For each object, how many-th it is in its class, by weight, from 1."""
    order = np.lexsort((-weight, classes))
    ordered = classes[order]
    first = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1]))
    turns = np.empty(weight.size)
    turns[order] = np.arange(weight.size) - np.repeat(first, np.diff(np.append(first, weight.size))) + 1
    return turns


def _of_part(table: pa.Table, shard: int) -> Iterator[Queued]:
    real = pc.and_(pc.equal(table["status"], "ok"), pc.invert(pc.fill_null(table["iscrowd"], False)))
    for row in table.filter(pc.and_(real, pc.is_valid(table["annotation_id"]))).to_pylist():
        yield Queued(row["annotation_id"], row["image_key"], shard, row["category_id"], expected_iou(row))
