"""Connected pieces of a score map as instances: soft masks cut to their window, and their scores."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Int32
from scipy import ndimage

from pseudolabel.masks import Grid, SoftMask
from pseudolabel.siseg.cells import SemanticCells
from pseudolabel.siseg.displacement import disagreement

SHARPNESS = 0.5  # of the score's loss with the distance between a piece's middle and where its cells arrive

Window = tuple[slice, ...]


@dataclass(frozen=True, slots=True)
class Instance:
    """A found object: its class as the semantic mask numbers it, its soft mask on the grid, and how sure it is."""

    class_index: int
    score: float
    mask: SoftMask


def pieces_of(
    index: int,
    winner: Int32[np.ndarray, "h w"],
    share: Float32[np.ndarray, "h w"],
    *,
    owner: int,
    semantic: SemanticCells,
    centroids: Int32[np.ndarray, "2 h w"] | None,
    smallest: float,
) -> Iterator[Instance]:
    """The 4-connected parts of the cells where map `index` wins, each an instance, without those that are too small.

    Args:
        share: the map's probability.
        owner: its class, an index into `semantic.classes`.
        centroids: where cells arrive; None where no field divided the mask.
        smallest: number of cells.
    """
    parts, _ = ndimage.label(winner == index)
    for name, window in enumerate(ndimage.find_objects(parts), start=1):
        own = parts[window] == name
        if own.sum() >= smallest:
            sure = _agreement(own, window, centroids) if centroids is not None else 1.0
            yield _instance(parts, name, share, owner, semantic, window, sure)


def _agreement(own: Bool[np.ndarray, "h w"], window: Window, centroids: Int32[np.ndarray, "2 H W"]) -> float:
    """1 where all cells of a piece arrive in its middle, less the farther they do."""
    cells = np.stack(np.nonzero(own)) + np.array([[window[0].start], [window[1].start]])
    return float(np.exp(-SHARPNESS * disagreement(centroids[:, cells[0], cells[1]], cells)))


def _instance(
    parts: Int32[np.ndarray, "h w"],
    name: int,
    share: Float32[np.ndarray, "h w"],
    owner: int,
    semantic: SemanticCells,
    window: Window,
    sure: float,
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
    score = sure * float((probability * semantic.confidence[rows, columns])[own].mean())
    mask = SoftMask(place, np.rint(probability * 255).astype(np.uint8))
    return Instance(semantic.classes[owner], score, mask)
