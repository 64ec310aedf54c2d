"""Losses over pairs of neighbouring cells, computed only where a box gives them weight.

A pair (i, j) costs -log(m_i m_j + (1 - m_i)(1 - m_j)) for m = sigmoid(z). With softplus that is
sp(z_i) + sp(z_j) - sp(z_i + z_j), and its derivative by z_i is sigmoid(z_i) - sigmoid(z_i + z_j). Every pair of cells
is evaluated once, with the weight 0, 1 or 2 that its two directed edges give together, and only cells of a box and of
the rim that an edge from it can reach are touched. The result equals the sum over the full grid; nothing is cut off.

The windows of all instances lie side by side on one canvas, each with its whole rim, so that a neighbour is the same
step away everywhere on the flattened canvas and no weighted edge leads from one window into another.
"""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from pseudolabel.losses.color import Offset, undirected_offsets


@dataclass(frozen=True, slots=True)
class Windows:
    """The cells of all boxes with their rims, and where each has its place on a canvas of c cells."""

    source: Int[Tensor, "m"]  # index into the flattened (n, h, w) logits
    image_source: Int[Tensor, "m"]  # index into flattened (b, h, w) planes of the images
    place: Int[Tensor, "m"]  # index into the flattened canvas
    instance: Int[Tensor, "m"]
    inside: Bool[Tensor, "c"]  # on the canvas: the cell is in its instance's box
    boxes: int
    canvas_hw: tuple[int, int]
    offsets: tuple[Offset, ...]

    @property
    def steps(self) -> tuple[int, ...]:
        """How far on the flattened canvas the second cell of each offset's pairs lies from the first; positive."""
        return tuple(dy * self.canvas_hw[1] + dx for dy, dx in self.offsets)

    def on_canvas(self, values: Tensor, source: Int[Tensor, "m"]) -> Tensor:
        """`values`, flattened and read at `source`, in their places on the flattened canvas; 0 elsewhere."""
        canvas = torch.zeros(self.inside.numel(), dtype=values.dtype, device=values.device)
        canvas[self.place] = values.flatten().index_select(0, source)
        return canvas


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
    """All cells that can have a weighted edge: each box of `box_cells` widened by the neighbourhood's reach.

    Args:
        image_index: which image of the batch each box is on.
        size_hw: the logits' grid.
    """
    offsets = undirected_offsets(size, dilation)
    reach = max(dy for dy, _ in offsets)
    corner, canvas_hw = _shelves(cells, reach)
    h, w = size_hw
    low = torch.stack([cells[:, 0] - reach, cells[:, 1] - reach]).clamp(min=0)
    high = torch.stack([(cells[:, 2] + reach).clamp(max=w), (cells[:, 3] + reach).clamp(max=h)])
    owner, row = _counted(low[1], high[1])
    start = row * w + low[0][owner]
    spot = (row - cells[owner, 1] + corner[owner, 1]) * canvas_hw[1] + (low[0] - cells[:, 0] + corner[:, 0])[owner]
    length = (high[0] - low[0])[owner]
    ends = length.cumsum(0)
    position = torch.arange(int(ends[-1]) if len(ends) else 0, device=cells.device)

    def per_cell(of_row: Tensor) -> Tensor:
        return torch.repeat_interleave(of_row - (ends - length), length) + position

    return Windows(
        source=per_cell(owner * (h * w) + start),
        image_source=per_cell(image_index[owner] * (h * w) + start),
        place=per_cell(spot),
        instance=torch.repeat_interleave(owner, length),
        inside=_boxes_on_canvas(cells, corner, canvas_hw),
        boxes=len(cells),
        canvas_hw=canvas_hw,
        offsets=offsets,
    )


def _counted(low: Int[Tensor, "n"], high: Int[Tensor, "n"]) -> tuple[Int[Tensor, "rows"], Int[Tensor, "rows"]]:
    """Every whole number from `low` to `high` - 1 of each entry, with the entry it belongs to."""
    count = high - low
    owner = torch.repeat_interleave(torch.arange(len(low), device=low.device), count)
    first = count.cumsum(0) - count
    return owner, torch.arange(owner.numel(), device=low.device) - first[owner] + low[owner]


def _shelves(cells: Int[Tensor, "n 4"], reach: int) -> tuple[Int[Tensor, "n 2"], tuple[int, int]]:
    """(column, row) on a canvas of each box's first cell, rims not overlapping; and the canvas' height and width.

    Tallest first, left to right, a new shelf when one is full.
    """
    sizes = [(right - left + 2 * reach, bottom - top + 2 * reach) for left, top, right, bottom in cells.tolist()]
    area = sum(width * height for width, height in sizes)
    pitch = max([int(area**0.5), *(width for width, _ in sizes), 2 * reach + 1])
    corners, column, shelf, next_shelf = [(0, 0)] * len(sizes), 0, 0, 0
    for index in sorted(range(len(sizes)), key=lambda index: -sizes[index][1]):
        width, height = sizes[index]
        if column + width > pitch:
            column, shelf = 0, next_shelf
        corners[index] = (column + reach, shelf + reach)
        column, next_shelf = column + width, max(next_shelf, shelf + height)
    # without a box one row of cells that are in none, as averages of a canvas without cells are an error
    return torch.tensor(corners, device=cells.device, dtype=torch.int64).reshape(-1, 2), (max(next_shelf, 1), pitch)


def _boxes_on_canvas(
    cells: Int[Tensor, "n 4"], corner: Int[Tensor, "n 2"], canvas_hw: tuple[int, int]
) -> Bool[Tensor, "c"]:
    """True in all boxes: +1 where a box's row begins, -1 behind its end, summed along the canvas."""
    owner, row = _counted(corner[:, 1], corner[:, 1] + cells[:, 3] - cells[:, 1])
    begin = row * canvas_hw[1] + corner[owner, 0]
    change = torch.zeros(canvas_hw[0] * canvas_hw[1] + 1, dtype=torch.int32, device=cells.device)
    change[begin] = 1
    change[begin + (cells[:, 2] - cells[:, 0])[owner]] = -1
    return change[:-1].cumsum(0, dtype=torch.int32) > 0


def image_edge_weights(edges: Int[Tensor, "b h w"], windows: Windows) -> Float[Tensor, "d c"]:
    """Weight 0, 1 or 2 of every pair, held at its first cell: its directed edges that start in the box and are set.

    Args:
        edges: from `color_edges`, with the size and dilation of the windows.
    """
    bits = windows.on_canvas(edges, windows.image_source)
    weights = torch.zeros(len(windows.offsets), bits.numel(), device=bits.device)
    for index, step in enumerate(windows.steps):
        there = ((bits >> index) & 1)[:-step] * windows.inside[:-step]
        back = ((bits >> (len(windows.offsets) + index)) & 1)[:-step] * windows.inside[step:]
        weights[index, :-step] = there + back
    return weights


def mask_edge_weights(
    masks: Float[Tensor, "n h w"], valid: Bool[Tensor, "b h w"], windows: Windows, *, threshold: float = 0.5
) -> Float[Tensor, "d c"]:
    """Weight 0, 1 or 2 of every pair whose smoothed mask values agree, as `image_edge_weights` for colours.

    Agreement is A = t_i t_j + (1 - t_i)(1 - t_j) for t = (M + 3x3 average of M) / 2, at least `threshold`; two cells
    of background agree as two of the object do.

    Args:
        masks: binary pseudo masks, zero outside their box.

    Source: BoxTeacher (arXiv 2210.05174), the noise-reduced affinity.
    """
    mask = windows.on_canvas(masks, windows.source).view(1, 1, *windows.canvas_hw)
    smooth = ((mask + F.avg_pool2d(mask, 3, stride=1, padding=1)) / 2).flatten()
    usable = windows.on_canvas(valid, windows.image_source)
    weights = torch.zeros(len(windows.offsets), smooth.numel(), device=smooth.device)
    for index, step in enumerate(windows.steps):
        first, second = smooth[:-step], smooth[step:]
        agree = first * second + (1 - first) * (1 - second) >= threshold
        there = agree & usable[step:] & windows.inside[:-step]
        weights[index, :-step] = there.float() + (agree & usable[:-step] & windows.inside[step:]).float()
    return weights


def sum_by_instance(weights: Float[Tensor, "d c"], windows: Windows) -> Float[Tensor, "n"]:
    """Total weight of each instance's pairs."""
    total = torch.zeros(windows.boxes, device=weights.device, dtype=weights.dtype)
    return total.index_add_(0, windows.instance, weights.sum(dim=0)[windows.place])


def scale_by_instance(
    weights: Float[Tensor, "d c"], factor: Float[Tensor, "n"], windows: Windows
) -> Float[Tensor, "d c"]:
    """Every instance's pairs times its own factor."""
    return weights * windows.on_canvas(factor, windows.instance)


def weighted_pair_loss(
    logits: Float[Tensor, "n h w"], windows: Windows, weights: Float[Tensor, "d c"]
) -> Float[Tensor, ""]:
    """Sum over all pairs of weight times -log P(same side), differentiable by the logits."""
    result: Tensor = _PairLoss.apply(logits, windows, weights)
    return result


def true_pair_loss(logits: Float[Tensor, "n h w"], windows: Windows, masks: Bool[Tensor, "n h w"]) -> Float[Tensor, ""]:
    """Mean over all directed edges that start in a box of -log P(same side) where the masks are alike at both ends, and
    of -log P(different sides) where they are not.

    Source: BoxInst (arXiv 2012.02310), eq. 5, as its table 2 trains with masks: without the edges that lead out of the
    object it loses 2 to 3 AP.
    """
    z = windows.on_canvas(logits, windows.source)
    truth = windows.on_canvas(masks, windows.source)
    there = windows.on_canvas(torch.ones_like(masks), windows.source)
    total, count = z.new_zeros(()), z.new_zeros(())
    for step in windows.steps:
        starts = windows.inside[:-step].to(z.dtype) + windows.inside[step:].to(z.dtype)
        edges = starts * (there[:-step] & there[step:])
        alike = truth[:-step] == truth[step:]
        cost = _unlikelihood(z[:-step], torch.where(alike, z[step:], -z[step:]))
        total, count = total + (edges * cost).sum(), count + edges.sum()
    return total / count.clamp(min=1)


def _unlikelihood(first: Float[Tensor, "c"], second: Float[Tensor, "c"]) -> Float[Tensor, "c"]:
    """-log P(same side); of -second it is -log P(different sides)."""
    inside = F.logsigmoid(first) + F.logsigmoid(second)
    outside = F.logsigmoid(-first) + F.logsigmoid(-second)
    return -torch.logaddexp(inside, outside)


class _PairLoss(torch.autograd.Function):
    """The gradient is found on the way forward, where all its parts are at hand; only its cells are kept."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, windows: Windows, weights: Tensor) -> Tensor:
        z = windows.on_canvas(logits.detach(), windows.source).float()
        loss, gradient = _pair_loss_and_gradient(z, windows.steps, weights)
        ctx.save_for_backward(windows.source, gradient.index_select(0, windows.place))
        ctx.shape, ctx.dtype = logits.shape, logits.dtype
        return loss

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None, None]:
        source, gradient = ctx.saved_tensors
        full = torch.zeros(ctx.shape.numel(), device=gradient.device, dtype=ctx.dtype)
        full[source] = (gradient * upstream[0]).to(ctx.dtype)
        return full.view(ctx.shape), None, None


def _pair_loss_and_gradient(
    z: Float[Tensor, "c"], steps: tuple[int, ...], weights: Float[Tensor, "d c"]
) -> tuple[Float[Tensor, ""], Float[Tensor, "c"]]:
    """The loss, and its derivative by every cell of the canvas.

    Softplus is split into its straight part and log1p(exp(-|x|)), whose straight parts (|a| + |b| - |a + b|) / 2 cancel
    exactly where both cells are on one side; sums run in float64.
    """
    size = z.abs()
    total = torch.zeros((), device=z.device, dtype=torch.float64)
    at_cell, pulled = torch.zeros_like(z), torch.zeros_like(z)
    for weight, step in zip(weights[:, :], steps, strict=True):
        weight = weight[:-step]
        both = z[:-step] + z[step:]
        both_size = both.abs()
        straight = (size[:-step] + size[step:]).sub_(both_size).mul_(0.5)
        straight -= both_size.neg_().exp_().log1p_()
        total += straight.mul_(weight).sum(dtype=torch.float64)
        pull = both.sigmoid_().mul_(weight)
        for side in (slice(None, -step), slice(step, None)):
            at_cell[side] += weight
            pulled[side] += pull
    total += size.neg_().exp_().log1p_().mul_(at_cell).sum(dtype=torch.float64)
    return total.to(z.dtype), at_cell.mul_(z.sigmoid()).sub_(pulled)
