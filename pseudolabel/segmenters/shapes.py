"""What an object may look like in its box before its colours are known: round, or a stick on one of the diagonals."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from pseudolabel.masks import Grid

Box = tuple[float, float, float, float]
_LENGTH = 1.45  # of a stick's ellipse, half of it, in half diagonals of the box; beyond 1 as sticks end at its corners


@dataclass(frozen=True, slots=True)
class Shape:
    """An ellipse in the box whose sides are one: upright and as large as the box, or along a diagonal."""

    slope: int = 0  # 1: from the upper left to the lower right, -1: the other diagonal, 0: upright
    thickness: float = 1.0  # of a slanted one, in half diagonals
    bias: float = 0.0  # log-odds of all its cells, as there are fewer of them

    def squared_radius(self, grid: Grid, xyxy: Box) -> Float64[np.ndarray, "h w"]:
        """Of every cell's centre, 1 on the ellipse."""
        across, down = in_box(grid, xyxy)
        squared: Float64[np.ndarray, "h w"] = across**2 + down**2
        if self.slope:
            along, off = (across + self.slope * down) / np.sqrt(2), (across - self.slope * down) / np.sqrt(2)
            squared = (off / self.thickness) ** 2 + (along / _LENGTH) ** 2
        return squared


ROUND = Shape()
STICKS = tuple(Shape(slope, thickness, -0.3) for thickness in (0.4, 0.2) for slope in (1, -1))


def in_box(grid: Grid, xyxy: Box) -> tuple[Float64[np.ndarray, "1 w"], Float64[np.ndarray, "h 1"]]:
    """Every cell's centre from the box's centre, in half sides of the box."""
    x, y = centres(grid)
    across = (2 * x - xyxy[0] - xyxy[2]) / max(xyxy[2] - xyxy[0], 1e-6)
    down = (2 * y - xyxy[1] - xyxy[3]) / max(xyxy[3] - xyxy[1], 1e-6)
    return across, down


def centres(grid: Grid) -> tuple[Float64[np.ndarray, "1 w"], Float64[np.ndarray, "h 1"]]:
    """Of all cells, as a row and a column."""
    x = grid.x0 + (np.arange(grid.width) + 0.5) * grid.stride_x
    y = grid.y0 + (np.arange(grid.height) + 0.5) * grid.stride_y
    return x[None, :], y[:, None]
