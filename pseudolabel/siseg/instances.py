"""From fields and a semantic mask to scored instances: clusters, their walk up to the boundaries, and the read-out."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float32, Int32
from scipy import ndimage

from pseudolabel.siseg.cells import SemanticCells
from pseudolabel.siseg.displacement import STEPS, WEAK_CELLS, cluster_cells, refine_centroids, refine_centroids_batch
from pseudolabel.siseg.pieces import Instance, pieces_of
from pseudolabel.siseg.random_walk import EXPONENT, RADIUS, TOLERANCE, walk, walk_batch
from pseudolabel.siseg.random_walk import STEPS as WALK_STEPS

Plane = Float32[np.ndarray, "h w"]
Planes = Float32[np.ndarray, "k h w"]


@dataclass(frozen=True, slots=True)
class ReadOut:
    """How instances are read; lengths in cells unless named otherwise.

    `semantic` trusts the mask: its background stays, and a class wins where the mask says so. `constant` lets scores
    compete with a constant background after division by their maximum, as IRNet does with activation maps.
    """

    background: Literal["semantic", "constant"] = "semantic"
    constant: float = 0.25
    smallest_share: float = 0.0005  # of the image's area; smaller pieces are dropped
    centroid_steps: int = STEPS
    weak_cells: float = WEAK_CELLS
    displaced: bool = True  # False: connected components of the mask take the place of clusters
    walk_steps: int = WALK_STEPS  # 0: no walk
    radius: int = RADIUS
    exponent: float = EXPONENT


@dataclass(frozen=True, slots=True)
class FieldMaps:
    """What the network says about one image."""

    displacement: Float32[np.ndarray, "2 h w"]
    boundary: Float32[np.ndarray, "h w"]  # probability


@dataclass(frozen=True, slots=True)
class ScoreMaps:
    """One map per pair of a class and a cluster."""

    owners: tuple[int, ...]  # index into SemanticCells.classes
    scores: Float32[np.ndarray, "k h w"]


@dataclass(frozen=True, slots=True)
class Found:
    """All instances of an image, and what they came from, for pictures."""

    instances: list[Instance]
    centroids: Int32[np.ndarray, "2 h w"] | None  # None where no field divided the mask
    before_walk: Int32[np.ndarray, "h w"]  # index of the score map of every cell, -1 = background
    after_walk: Int32[np.ndarray, "h w"]


def find_instances(fields: FieldMaps, semantic: SemanticCells, options: ReadOut, *, device: str = "cpu") -> Found:
    """Every instance of an image that the fields and the mask show, largest score first.

    On a GPU the refinement of centroids and the walk run there, to the same result within rounding.

    Source: SISeg; IRNet's make_ins_seg_labels for the read-out. Where regions of weak displacement may lie, and the
    score's factor for cells that do not arrive in the middle of their piece, are ours.
    """
    centroids = arrivals(fields.displacement, options, device=device) if options.displaced else None
    clusters = (
        np.ones_like(fields.boundary, dtype=np.int32)
        if centroids is None
        else cluster_cells(fields.displacement, centroids, weak_cells=options.weak_cells, ground=semantic.ground)
    )
    maps = combine(semantic, clusters)
    before, _ = read_out(maps, semantic, options)
    scores = walk_scores(maps.scores, fields.boundary, options, device=device)
    after, share = read_out(ScoreMaps(maps.owners, scores), semantic, options)
    smallest = max(options.smallest_share * after.size, 1)
    instances = [
        piece
        for index, owner in enumerate(maps.owners)
        for piece in pieces_of(
            index, after, share[index], owner=owner, semantic=semantic, centroids=centroids, smallest=smallest
        )
    ]
    instances.sort(key=lambda one: -one.score)
    return Found(instances, centroids, before, after)


def arrivals(
    displacement: Float32[np.ndarray, "2 h w"], options: ReadOut, *, device: str = "cpu"
) -> Int32[np.ndarray, "2 h w"]:
    """The cell at which every cell arrives, followed on the given device."""
    if device == "cpu":
        return refine_centroids(displacement, steps=options.centroid_steps)
    field = torch.from_numpy(displacement).to(device)[None]
    found = refine_centroids_batch(field, steps=options.centroid_steps)[0]
    result: Int32[np.ndarray, "2 h w"] = found.to("cpu", torch.int32).numpy()
    return result


def walk_scores(scores: Planes, boundary: Plane, options: ReadOut, *, device: str = "cpu") -> Planes:
    """Scores spread up to the boundaries; as they were where there is no walk or nothing to spread."""
    if not options.walk_steps or not len(scores):
        return scores
    if device == "cpu":
        return walk(scores, boundary, steps=options.walk_steps, radius=options.radius, exponent=options.exponent)
    planes, edges = (torch.from_numpy(array).to(device)[None] for array in (scores, boundary))
    spread = walk_batch(planes, edges, steps=options.walk_steps, radius=options.radius, exponent=options.exponent)
    result: Planes = spread[0].cpu().numpy()
    return result


def combine(semantic: SemanticCells, clusters: Int32[np.ndarray, "h w"]) -> ScoreMaps:
    """Class scores times cluster membership, for every class and every cluster that meet.

    Cells without a cluster follow the walk; only where a whole connected region has none, it becomes a cluster.
    """
    owners: list[int] = []
    planes: list[Plane] = []
    for owner, cover in enumerate(semantic.cover):
        named = name_stray_regions(clusters, cover > 0.5)
        for name in np.unique(named[cover > 0.5]):
            if name:
                owners.append(owner)
                planes.append(cover * (named == name))
    empty = np.zeros((0, *clusters.shape), np.float32)
    return ScoreMaps(tuple(owners), np.stack(planes) if planes else empty)


def name_stray_regions(clusters: Int32[np.ndarray, "h w"], inside: Bool[np.ndarray, "h w"]) -> Int32[np.ndarray, "h w"]:
    """Clusters with a new id for every connected region of `inside` in which no cell has one."""
    regions, count = ndimage.label(inside)
    if not count:
        return clusters
    claimed = np.unique(regions[clusters > 0])
    stray = np.setdiff1d(np.arange(1, count + 1), claimed)
    names = np.zeros(count + 1, np.int32)
    names[stray] = clusters.max() + 1 + np.arange(len(stray))
    result: Int32[np.ndarray, "h w"] = np.where(clusters > 0, clusters, names[regions]).astype(np.int32)
    return result


def read_out(maps: ScoreMaps, semantic: SemanticCells, options: ReadOut) -> tuple[Int32[np.ndarray, "h w"], Planes]:
    """The winning map of every cell (-1: background), and every map's probability: above one half where it wins."""
    if not maps.owners:
        return np.full(semantic.confidence.shape, -1, np.int32), maps.scores
    if options.background == "constant":
        return _against_constant(maps.scores, options.constant)
    return _inside_classes(maps, semantic)


def _against_constant(scores: Planes, constant: float) -> tuple[Int32[np.ndarray, "h w"], Planes]:
    scores = np.maximum(scores / max(float(scores.max()), 1e-12), 0)
    best, second = _two_highest(scores)
    rival = np.maximum(np.where(scores == best, second, best), constant)
    winner = np.where(best > constant, scores.argmax(axis=0), -1).astype(np.int32)
    return winner, scores / (scores + rival)


def _inside_classes(maps: ScoreMaps, semantic: SemanticCells) -> tuple[Int32[np.ndarray, "h w"], Planes]:
    winner = np.full(semantic.confidence.shape, -1, np.int32)
    probability = np.zeros_like(maps.scores)
    for owner, cover in enumerate(semantic.cover):
        own = np.flatnonzero(np.array(maps.owners) == owner)
        if not len(own):
            continue
        scores = _with_nearest(maps.scores[own], cover > 0.5)
        best, second = _two_highest(scores)
        share = scores / np.maximum(scores + np.where(scores == best, second, best), 1e-12)
        probability[own] = np.minimum(share, cover)
        winner = np.where(cover > 0.5, own[scores.argmax(axis=0)], winner).astype(np.int32)
    return winner, probability


def _two_highest(scores: Planes) -> tuple[Plane, Plane]:
    if len(scores) == 1:
        return scores[0], np.zeros_like(scores[0])
    top = np.partition(scores, len(scores) - 2, axis=0)
    return top[-1], top[-2]


def _with_nearest(scores: Planes, inside: Bool[np.ndarray, "h w"]) -> Planes:
    """Scores whose unreached cells (all maps within the walk's error of 0) are copied from the nearest reached cell."""
    scores = np.maximum(scores, 0)
    reached = inside & (scores.max(axis=0) > 2 * TOLERANCE)
    if not reached.any() or (reached | ~inside).all():
        return scores
    nearest = ndimage.distance_transform_edt(~reached, return_distances=False, return_indices=True)
    copied: Planes = np.where(reached, scores, scores[:, nearest[0], nearest[1]])
    return copied
