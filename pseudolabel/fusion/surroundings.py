"""A box and what is around it, in colours, on a small grid: what refinement and scoring look at beside the masks."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, UInt8
from PIL import Image

from pseudolabel.masks import Grid
from pseudolabel.random_field import CLUSTERS, cluster_colours, rgb_to_lab

MARGIN = 0.2  # per side, in sides of the box
MAX_CELLS = 96


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Colours of the cells of a box and around it."""

    grid: Grid
    lab: Float32[np.ndarray, "h w 3"]  # CIE-Lab
    cluster: UInt8[np.ndarray, "h w"]  # of similar colours

    @classmethod
    def of(cls, window: Grid, rgb: UInt8[np.ndarray, "H W 3"]) -> "Surroundings":
        """The surroundings of a window of pixels, averaged onto at most 96 x 96 cells.

        Args:
            rgb: the photograph.
        """
        grid = _surroundings(window, (rgb.shape[0], rgb.shape[1]))
        lab = rgb_to_lab(_average_color(rgb, grid))
        cluster = cluster_colours(lab.reshape(-1, 3), CLUSTERS).reshape(lab.shape[:2])
        return cls(grid, lab, cluster.astype(np.uint8))

    def inside(self, window: Grid) -> Bool[np.ndarray, "h w"]:
        """The cells whose centres lie in a window."""
        grid = self.grid
        x = grid.x0 + (np.arange(grid.width) + 0.5) * grid.stride_x
        y = grid.y0 + (np.arange(grid.height) + 0.5) * grid.stride_y
        left, top, right, bottom = window.extent_xyxy
        return np.outer((y > top) & (y < bottom), (x > left) & (x < right))


def _surroundings(window: Grid, size_hw: tuple[int, int]) -> Grid:
    x0, x1 = _widened(window.x0, window.width, size_hw[1])
    y0, y1 = _widened(window.y0, window.height, size_hw[0])
    width, height = min(x1 - x0, MAX_CELLS), min(y1 - y0, MAX_CELLS)
    return Grid(float(x0), float(y0), (x1 - x0) / width, (y1 - y0) / height, height, width)


def _widened(start: float, length: int, size: int) -> tuple[int, int]:
    margin = max(4, round(MARGIN * length))
    return max(0, int(start) - margin), min(size, int(start) + length + margin)


def _average_color(image_rgb: UInt8[np.ndarray, "H W 3"], grid: Grid) -> Float32[np.ndarray, "h w 3"]:
    x0, y0, x1, y1 = (round(edge) for edge in grid.extent_xyxy)
    crop = Image.fromarray(np.ascontiguousarray(image_rgb[y0:y1, x0:x1]))
    return np.asarray(crop.resize((grid.width, grid.height), Image.Resampling.BOX), dtype=np.float32)
