"""From fields and a semantic mask to scored instances: clusters, their walk up to the boundaries, and the read-out."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float32, Int32, UInt8
from scipy import ndimage

from pseudolabel.masks import Grid, SoftMask
from pseudolabel.siseg.displacement import STEPS, WEAK_CELLS, cluster_cells, refine_centroids, refine_centroids_batch
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
class SemanticCells:
    """A semantic mask on the network's grid.

    `cover[i]` is the share of each cell that class `classes[i]` takes, `confidence` the segmenter's own probability.
    """

    classes: tuple[int, ...]
    cover: Float32[np.ndarray, "c h w"]
    confidence: Float32[np.ndarray, "h w"]
    size_hw: tuple[int, int]  # of the image

    @property
    def grid(self) -> Grid:
        height, width = self.confidence.shape
        return Grid(0.0, 0.0, self.size_hw[1] / width, self.size_hw[0] / height, height, width)


@dataclass(frozen=True, slots=True)
class ScoreMaps:
    """One map per pair of a class and a cluster."""

    owners: tuple[int, ...]  # index into SemanticCells.classes
    scores: Float32[np.ndarray, "k h w"]


@dataclass(frozen=True, slots=True)
class Instance:
    """A found object: its class as the semantic mask numbers it, its soft mask on the grid, and how sure it is."""

    class_index: int
    score: float
    mask: SoftMask


@dataclass(frozen=True, slots=True)
class Found:
    """All instances of an image, and what they came from, for pictures."""

    instances: list[Instance]
    clusters: Int32[np.ndarray, "h w"]
    before_walk: Int32[np.ndarray, "h w"]  # index of the score map of every cell, -1 = background
    after_walk: Int32[np.ndarray, "h w"]


def semantic_cells(
    labels: UInt8[np.ndarray, "H W"],
    confidence: UInt8[np.ndarray, "H W"] | None,
    grid_hw: tuple[int, int],
    *,
    objects: Collection[int],
) -> SemanticCells:
    """A label map and its confidence (255 = certain; None: certain everywhere), averaged over the cells of a grid.

    Classes outside `objects` are background.
    """
    rows, columns = (area_matrix(size, count) for size, count in zip(labels.shape, grid_hw, strict=True))
    classes = tuple(int(index) for index in np.unique(labels) if index in objects)
    cover = [rows @ (labels == index).astype(np.float32) @ columns.T for index in classes]
    sure = np.full(labels.shape, 255, np.uint8) if confidence is None else confidence
    planes = np.stack(cover) if cover else np.zeros((0, *grid_hw), np.float32)
    mean_confidence = rows @ (sure.astype(np.float32) / 255) @ columns.T
    height, width = labels.shape
    return SemanticCells(classes, planes, mean_confidence, (height, width))


def area_matrix(size: int, count: int) -> Float32[np.ndarray, "count size"]:
    """Rows that average `size` pixels over each of `count` equal cells; a pixel between two cells counts in both."""
    edges = np.arange(count + 1) * (size / count)
    pixels = np.arange(size)
    overlap = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    weights: Float32[np.ndarray, "count size"] = (np.clip(overlap, 0, None) * (count / size)).astype(np.float32)
    return weights


def find_instances(fields: FieldMaps, semantic: SemanticCells, options: ReadOut, *, device: str = "cpu") -> Found:
    """Every instance of an image that the fields and the mask show, largest score first.

    On a GPU the refinement of centroids and the walk run there, to the same result within rounding.

    Source: SISeg; IRNet's make_ins_seg_labels for the read-out.
    """
    clusters = (
        find_clusters(fields.displacement, options, device=device)
        if options.displaced
        else np.ones_like(fields.boundary, dtype=np.int32)
    )
    maps = combine(semantic, clusters)
    before, _ = read_out(maps, semantic, options)
    scores = walk_scores(maps.scores, fields.boundary, options, device=device)
    after, share = read_out(ScoreMaps(maps.owners, scores), semantic, options)
    instances = [
        piece
        for index in range(len(maps.owners))
        for piece in _pieces(index, after, share, maps.owners[index], semantic, options)
    ]
    instances.sort(key=lambda one: -one.score)
    return Found(instances, clusters, before, after)


def find_clusters(
    displacement: Float32[np.ndarray, "2 h w"], options: ReadOut, *, device: str = "cpu"
) -> Int32[np.ndarray, "h w"]:
    """Class-agnostic instance ids of cells, 0 for those that arrive nowhere."""
    if device == "cpu":
        centroids = refine_centroids(displacement, steps=options.centroid_steps)
    else:
        field = torch.from_numpy(displacement).to(device)[None]
        centroids = refine_centroids_batch(field, steps=options.centroid_steps)[0].to("cpu", torch.int32).numpy()
    return cluster_cells(displacement, centroids, weak_cells=options.weak_cells)


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


def _pieces(
    index: int, winner: Int32[np.ndarray, "h w"], share: Planes, owner: int, semantic: SemanticCells, options: ReadOut
) -> list[Instance]:
    """The 4-connected parts of one map's cells, each an instance, without those that are too small."""
    parts, _ = ndimage.label(winner == index)
    smallest = max(options.smallest_share * parts.size, 1)
    result = []
    for name, window in enumerate(ndimage.find_objects(parts), start=1):
        own = parts[window] == name
        if own.sum() >= smallest:
            result.append(_instance(parts, name, share[index], owner, semantic, window))
    return result


def _instance(
    parts: Int32[np.ndarray, "h w"],
    name: int,
    share: Plane,
    owner: int,
    semantic: SemanticCells,
    window: tuple[slice, ...],
) -> Instance:
    """One piece with a rim of one cell, so that its edge is interpolated; other pieces of the map are cut away."""
    rows, columns = (
        slice(max(part.start - 1, 0), min(part.stop + 1, size)) for part, size in zip(window, parts.shape, strict=True)
    )
    own = parts[rows, columns] == name
    rim = ndimage.binary_dilation(own, np.ones((3, 3))) & (parts[rows, columns] == 0)
    probability = share[rows, columns] * (own | rim)
    grid = semantic.grid
    place = Grid(
        columns.start * grid.stride_x, rows.start * grid.stride_y, grid.stride_x, grid.stride_y, *probability.shape
    )
    score = float((probability * semantic.confidence[rows, columns])[own].mean())
    mask = SoftMask(place, np.rint(probability * 255).astype(np.uint8))
    return Instance(semantic.classes[owner], score, mask)
