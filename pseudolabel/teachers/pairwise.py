"""Losses over pairs of neighbouring cells, computed only where a box gives them weight.

A pair (i, j) costs -log(m_i m_j + (1 - m_i)(1 - m_j)) for m = sigmoid(z). With softplus that is
sp(z_i) + sp(z_j) - sp(z_i + z_j), and its derivative by z_i is sigmoid(z_i) - sigmoid(z_i + z_j). Every pair of cells
is evaluated once, with the weight 0, 1 or 2 that its two directed edges give together, and only cells of a box and of
the rim that an edge from it can reach are touched. The result equals the sum over the full grid; nothing is cut off.
"""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from pseudolabel.teachers.color import Offset, undirected_offsets


@dataclass(frozen=True, slots=True)
class Windows:
    """The cells of all boxes with their rims, one after the other."""

    cells: Int[Tensor, "m"]  # index into the flattened (n, h, w) logits
    image_cells: Int[Tensor, "m"]  # index into one flattened (h, w) plane
    image: Int[Tensor, "m"]  # which image of the batch the instance is on
    instance: Int[Tensor, "m"]
    pitch: Int[Tensor, "m"]  # cells per row of the cell's window
    row: Int[Tensor, "m"]
    column: Int[Tensor, "m"]
    box_cells: Int[Tensor, "n 4"]
    offsets: tuple[Offset, ...]
    size_hw: tuple[int, int]

    def inside(self, offset: Offset = (0, 0)) -> Bool[Tensor, "m"]:
        """Whether the cell that lies `offset` further is in the box."""
        left, top, right, bottom = self.box_cells[self.instance].unbind(1)
        row, column = self.row + offset[0], self.column + offset[1]
        return (row >= top) & (row < bottom) & (column >= left) & (column < right)

    def neighbour(self, offset: Offset) -> Int[Tensor, "m"]:
        """Position in the window list of the cell `offset` further; meaningless (but in range) beyond the window."""
        position = torch.arange(self.cells.numel(), device=self.cells.device)
        return (position + self.pitch * offset[0] + offset[1]).clamp_(0, max(self.cells.numel() - 1, 0))


def box_cells(boxes_xyxy: Float[Tensor, "n 4"], size_hw: tuple[int, int], *, stride: int = 4) -> Int[Tensor, "n 4"]:
    """(left, top, right, bottom) of the cells whose pixel is in the box, ends exclusive, clipped to the grid.

    The pixels of a box are columns int(x1) to int(x2 + 1) - 1, rows alike; a cell stands for the pixel at its own
    stride * index + stride // 2. A box between two such pixels takes the one cell nearest to its middle, so that no
    object is without a target.
    """
    limits = torch.tensor([size_hw[1], size_hw[0]], device=boxes_xyxy.device)
    low = _first_cell(boxes_xyxy[:, :2].floor(), stride)
    high = _first_cell((boxes_xyxy[:, 2:] + 1).floor(), stride)
    middle = ((boxes_xyxy[:, :2] + boxes_xyxy[:, 2:]) / 2 / stride).floor().long()
    low = torch.where(high > low, low, middle)
    low = torch.minimum(low.clamp(min=0), limits - 1)
    high = torch.minimum(torch.maximum(high, low + 1), limits)
    return torch.cat([low, high], dim=1)


def _first_cell(pixel: Float[Tensor, "n 2"], stride: int) -> Int[Tensor, "n 2"]:
    return ((pixel - stride // 2) / stride).ceil().long()


def box_windows(
    cells: Int[Tensor, "n 4"],
    image_index: Int[Tensor, "n"],
    size_hw: tuple[int, int],
    *,
    size: int = 3,
    dilation: int = 2,
) -> Windows:
    """All cells that can have a weighted edge: each box of `box_cells` widened by the neighbourhood's reach."""
    offsets = undirected_offsets(size, dilation)
    reach = max(dy for dy, _ in offsets)
    limits = torch.tensor([size_hw[1], size_hw[0]], device=cells.device)
    low = (cells[:, :2] - reach).clamp(min=0)
    span = torch.minimum(cells[:, 2:] + reach, limits) - low
    count = span.prod(dim=1)
    instance = torch.repeat_interleave(torch.arange(len(cells), device=cells.device), count)
    local = torch.arange(instance.numel(), device=cells.device) - (count.cumsum(0) - count)[instance]
    pitch = span[instance, 0]
    row = torch.div(local, pitch, rounding_mode="floor")
    column = local - row * pitch + low[instance, 0]
    row = row + low[instance, 1]
    image_cells = row * size_hw[1] + column
    flat = instance * (size_hw[0] * size_hw[1]) + image_cells
    return Windows(flat, image_cells, image_index[instance], instance, pitch, row, column, cells, offsets, size_hw)


def image_edge_weights(edges: Bool[Tensor, "b 2 d h w"], windows: Windows) -> Float[Tensor, "d m"]:
    """Weight 0, 1 or 2 of every pair in the windows: its directed edges that start in the box and are set."""
    planes = edges.flatten(3)
    inside = windows.inside()
    rows = []
    for index, offset in enumerate(windows.offsets):
        there = planes[:, 0, index][windows.image, windows.image_cells] & inside
        back = planes[:, 1, index][windows.image, windows.image_cells] & windows.inside(offset)
        rows.append(there.float() + back.float())
    return torch.stack(rows)


def mask_edge_weights(
    masks: Float[Tensor, "n h w"], valid: Bool[Tensor, "b h w"], windows: Windows, *, threshold: float = 0.5
) -> Float[Tensor, "d m"]:
    """Weight 0, 1 or 2 of every pair whose smoothed mask values agree, as `image_edge_weights` for colours.

    Agreement is A = t_i t_j + (1 - t_i)(1 - t_j) for t = (M + 3x3 average of M) / 2, at least `threshold`; two cells
    of background agree as two of the object do.

    Args:
        masks: binary pseudo masks, zero outside their box.

    Source: BoxTeacher (arXiv 2210.05174), the noise-reduced affinity.
    """
    smooth = (masks + F.avg_pool2d(masks[:, None], 3, stride=1, padding=1)[:, 0]) / 2
    value = smooth.flatten()[windows.cells]
    usable = valid.flatten(1)[windows.image, windows.image_cells]
    inside = windows.inside()
    rows = []
    for offset in windows.offsets:
        other = windows.neighbour(offset)
        agree = (value * value[other] + (1 - value) * (1 - value[other]) >= threshold) & _on_grid(windows, offset)
        rows.append((agree & usable[other] & inside).float() + (agree & usable & windows.inside(offset)).float())
    return torch.stack(rows)


def _on_grid(windows: Windows, offset: Offset) -> Bool[Tensor, "m"]:
    row, column = windows.row + offset[0], windows.column + offset[1]
    h, w = windows.size_hw
    return (row >= 0) & (row < h) & (column >= 0) & (column < w)


def sum_by_instance(weights: Float[Tensor, "d m"], windows: Windows) -> Float[Tensor, "n"]:
    """Total weight of each instance's pairs."""
    total = torch.zeros(len(windows.box_cells), device=weights.device, dtype=weights.dtype)
    return total.index_add_(0, windows.instance, weights.sum(dim=0))


def weighted_pair_loss(
    logits: Float[Tensor, "n h w"], windows: Windows, weights: Float[Tensor, "d m"]
) -> Float[Tensor, ""]:
    """Sum over all pairs of weight times -log P(same side), differentiable by the logits."""
    result: Tensor = _PairLoss.apply(logits, windows, weights)
    return result


class _PairLoss(torch.autograd.Function):
    """The gradient is found on the way forward, where all its parts are at hand; only its cells are kept."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, windows: Windows, weights: Tensor) -> Tensor:
        z = logits.detach().flatten()[windows.cells].float()
        loss, gradient = _pair_loss_and_gradient(z, windows, weights)
        ctx.save_for_backward(windows.cells, gradient)
        ctx.shape, ctx.dtype = logits.shape, logits.dtype
        return loss

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None, None]:
        cells, gradient = ctx.saved_tensors
        full = torch.zeros(ctx.shape.numel(), device=gradient.device, dtype=ctx.dtype)
        full[cells] = (gradient * upstream[0]).to(ctx.dtype)
        return full.view(ctx.shape), None, None


def _pair_loss_and_gradient(z: Tensor, windows: Windows, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Loss and derivative by every window cell.

    Softplus is split into its straight part and log1p(exp(-|x|)), whose straight parts (|a| + |b| - |a + b|) / 2 cancel
    exactly where both cells are on one side; sums run in float64.
    """
    size = z.abs()
    decay = torch.exp(-size)
    total = torch.zeros((), device=z.device, dtype=torch.float64)
    at_cell, pulled = torch.zeros_like(z), torch.zeros_like(z)
    for weight, offset in zip(weights, windows.offsets, strict=True):
        other, before = windows.neighbour(offset), windows.neighbour((-offset[0], -offset[1]))
        both = z + z[other]
        both_size = both.abs()
        both_decay = torch.exp(-both_size)
        straight = (size + size[other] - both_size) * 0.5
        total += (weight * (straight - torch.log1p(both_decay))).sum(dtype=torch.float64)
        pull = weight * _logistic(both, both_decay)
        # the pair's second cell reads what its first cell holds; beyond the window that is nothing
        arrives = _starts_in_window(windows, offset)
        at_cell += weight + torch.where(arrives, weight[before], 0)
        pulled += pull + torch.where(arrives, pull[before], 0)
    total += (at_cell * torch.log1p(decay)).sum(dtype=torch.float64)
    return total.to(z.dtype), at_cell * _logistic(z, decay) - pulled


def _starts_in_window(windows: Windows, offset: Offset) -> Bool[Tensor, "m"]:
    """Whether the cell that lies `offset` before is in the same window."""
    reach = max(dy for dy, _ in windows.offsets)
    h, w = windows.size_hw
    left, top, right, bottom = windows.box_cells[windows.instance].unbind(1)
    row, column = windows.row - offset[0], windows.column - offset[1]
    in_rows = (row >= (top - reach).clamp(min=0)) & (row < (bottom + reach).clamp(max=h))
    return in_rows & (column >= (left - reach).clamp(min=0)) & (column < (right + reach).clamp(max=w))


def _logistic(x: Tensor, decay: Tensor) -> Tensor:
    """sigmoid(x) from exp(-|x|)."""
    return torch.where(x >= 0, 1.0, decay) / (1 + decay)
