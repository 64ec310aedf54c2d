"""Pairs of grid cells: which cells are compared, which path lies between them, and what labels say about them.

Source: Ahn et al., IRNet (CVPR 2019), as SISeg uses it: offsets inside a radius, each unordered pair once. What given
boxes say beside the labels is this project's.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

IGNORE = 255
CROWDED = -1  # owner of a cell that three or more boxes hold

Offset = tuple[int, int]  # (rows down, columns right), in cells


class PairSets(NamedTuple):
    """What two labels say about each pair; a pair with an ignored end is in none of the three."""

    object_same: Bool[Tensor, "b offsets rows columns"]
    background_same: Bool[Tensor, "b offsets rows columns"]
    different: Bool[Tensor, "b offsets rows columns"]


@lru_cache(maxsize=16)
def pair_offsets(radius: int) -> tuple[Offset, ...]:
    """Offsets from a cell to its partners nearer than `radius` cells, each unordered pair once: 152 at 10, 34 at 5."""
    right = [(0, x) for x in range(1, radius)]
    below = [(y, x) for y in range(1, radius) for x in range(1 - radius, radius) if y * y + x * x < radius * radius]
    return tuple(right + below)


@lru_cache(maxsize=1024)
def path_cells(offset: Offset) -> tuple[Offset, ...]:
    """Cells of the bounding rectangle of (0, 0) and `offset` less than one cell off the line between them, ends too."""
    down, across = offset
    rows = range(min(0, down), max(0, down) + 1)
    columns = range(min(0, across), max(0, across) + 1)
    length_squared = down * down + across * across
    return tuple((y, x) for y in rows for x in columns if (across * y - down * x) ** 2 < length_squared)


def source_size(size_hw: tuple[int, int], radius: int) -> tuple[int, int]:
    """Rows and columns of the cells whose partners and paths all lie on the grid.

    Raises:
        ValueError: the grid is too small for any.
    """
    rows, columns = size_hw[0] - (radius - 1), size_hw[1] - 2 * (radius - 1)
    if rows < 1 or columns < 1:
        raise ValueError(f"a grid of {size_hw[0]} x {size_hw[1]} cells is too small for pairs of radius {radius}")
    return rows, columns


def partners(grid: Tensor, offset: Offset, radius: int) -> Tensor:
    """`grid` (..., h, w) read at every source cell plus `offset`: a view (..., rows, columns)."""
    rows, columns = source_size((grid.shape[-2], grid.shape[-1]), radius)
    top, left = offset[0], radius - 1 + offset[1]
    return grid[..., top : top + rows, left : left + columns]


def pair_sets(labels: Int[Tensor, "b h w"], radius: int, owners: Int[Tensor, "b 2 h w"] | None = None) -> PairSets:
    """The transform T: label maps (0 background, 255 ignore) to relations of pairs.

    Args:
        owners: from `box_owners`. Then a pair of one class is different where its cells share no box, the same where
            both lie in one box and in no other, and in no set where they share one of several: whose border may lie
            between them is not known. A cell in no box is told by its class alone.
    """
    here = partners(labels, (0, 0), radius).unsqueeze(1)
    there = _all_partners(labels, radius)
    valid = (here != IGNORE) & (there != IGNORE)
    same = (here == there) & valid
    objects, different = same & (here > 0), valid & (here != there)
    if owners is not None:
        one, apart = _told_by_boxes(owners, radius)
        objects, different = objects & one, different | (objects & apart)
    return PairSets(objects, same & (here == 0), different)


def _told_by_boxes(owners: Int[Tensor, "b 2 h w"], radius: int) -> tuple[Tensor, Tensor]:
    """Of every pair: whether boxes leave it one object's, and whether they make it two objects'."""
    here = partners(owners, (0, 0), radius).unsqueeze(2)
    there = torch.stack([_all_partners(plane, radius) for plane in owners.unbind(1)], dim=1)
    owned = (here[:, 0] != 0) & (there[:, 0] != 0)
    crowded = (here[:, 0] == CROWDED) | (there[:, 0] == CROWDED)
    shared = crowded | (here.unsqueeze(1) == there.unsqueeze(2)).flatten(1, 2).any(dim=1)
    alone = (here[:, 0] == here[:, 1]) & (there[:, 0] == there[:, 1]) & ~crowded
    return ~owned | (shared & alone), owned & ~shared


def _all_partners(grid: Tensor, radius: int) -> Tensor:
    """`grid` (b, h, w) read at the partners of all source cells, (b, offsets, rows, columns)."""
    return torch.stack([partners(grid, offset, radius) for offset in pair_offsets(radius)], dim=1)


def box_owners(
    labels: Int[Tensor, "h w"], boxes: Sequence[tuple[float, float, float, float]], box_labels: Sequence[int]
) -> Int[Tensor, "2 h w"]:
    """The first and the last of the boxes that hold the middle of each cell and have its label, numbered from 1.

    The two are the same where it is one box, 0 where there is none, and `CROWDED` where there are three or more.

    Args:
        boxes: (x1, y1, x2, y2) in cells.
    """
    first, last, count = (torch.zeros(labels.shape, dtype=torch.int16) for _ in range(3))
    row, column = (torch.arange(length) + 0.5 for length in labels.shape)
    for number, ((x1, y1, x2, y2), label) in enumerate(zip(boxes, box_labels, strict=True), start=1):
        inside = ((row >= y1) & (row < y2))[:, None] & ((column >= x1) & (column < x2)) & (labels == label)
        first[inside & (count == 0)] = number
        last[inside] = number
        count += inside
    return torch.stack([first, last]).masked_fill_(count > 2, CROWDED)


def path_maximum(grid: Tensor, offset: Offset, radius: int) -> Tensor:
    """The largest value of `grid` (b, h, w) on the path of every pair of one offset, (b, rows, columns)."""
    highest = partners(grid, (0, 0), radius).clone(memory_format=torch.contiguous_format)
    for cell in path_cells(offset):
        torch.maximum(highest, partners(grid, cell, radius), out=highest)
    return highest


def rank_cells(grid: Float[Tensor, "b h w"]) -> tuple[Int[Tensor, "b h w"], Int[Tensor, "b cells"]]:
    """Every cell's rank by value, and the flat index of the cell of each rank.

    A maximum over ranks finds the winning cell as well as its value, in integers; among equal values one cell wins.
    """
    order = grid.detach().flatten(1).argsort(dim=1, stable=True)
    places = torch.arange(order.shape[1], device=order.device).expand_as(order)
    ranks = torch.empty_like(order).scatter_(1, order, places)
    return ranks.to(torch.int32).view_as(grid), order
