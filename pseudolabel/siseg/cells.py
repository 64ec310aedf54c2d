"""A semantic mask on the network's grid: which share of a cell every class takes, and how sure the segmenter is."""

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, UInt8
from scipy import ndimage

from pseudolabel.masks import Grid


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

    @property
    def ground(self) -> Bool[np.ndarray, "h w"]:
        """Where an object's centre may lie: on objects, and in the holes that they enclose, as a ring does."""
        filled: Bool[np.ndarray, "h w"] = ndimage.binary_fill_holes(self.cover.sum(axis=0) > 0.5)
        return filled


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
