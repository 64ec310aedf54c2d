"""Which neighbouring cells look alike: colour similarity on the mask head's stride-4 grid, from the image alone.

A cell (r, c) of the grid stands for the pixel (stride * r + stride // 2, stride * c + stride // 2), which is where box
masks and validity are read; its colour is the average over its stride x stride pixels.
"""

import math

import torch
from jaxtyping import Bool, Float, Int
from kornia.color import rgb_to_lab
from torch import Tensor
from torch.nn import functional as F

Offset = tuple[int, int]


def undirected_offsets(size: int = 3, dilation: int = 2) -> tuple[Offset, ...]:
    """(dy, dx) to half of the `size` x `size` dilated neighbours, so that every pair of cells is named once.

    Raises:
        ValueError: `size` is even or less than 3, or `dilation` less than 1.
    """
    if size < 3 or size % 2 == 0 or dilation < 1:
        raise ValueError(f"expected an odd size of 3 or more and a dilation of 1 or more, got {size} and {dilation}")
    reach = size // 2
    steps = [(dy, dx) for dy in range(-reach, reach + 1) for dx in range(-reach, reach + 1)]
    return tuple((dy * dilation, dx * dilation) for dy, dx in steps[len(steps) // 2 + 1 :])


def lab_cells(images: Float[Tensor, "b 3 H W"], *, stride: int = 4) -> Float[Tensor, "b 3 h w"]:
    """CIE-Lab (D65) of every cell's average colour, truncated to whole RGB levels first.

    Args:
        images: RGB, 0 to 255.
        stride: pixels per cell; both sides of the image are multiples of it.

    Source: BoxInst (arXiv 2012.02310), the average pooling before the colour conversion.
    """
    if images.shape[1] != 3 or images.shape[2] % stride or images.shape[3] % stride:
        raise ValueError(f"expected (b, 3, H, W) with sides divisible by {stride}, got {tuple(images.shape)}")
    pooled = F.avg_pool2d(images.float(), stride).clamp(0, 255).floor()
    lab: Tensor = rgb_to_lab(pooled / 255)
    return lab


def valid_cells(
    sizes_hw: Int[Tensor, "b 2"],
    grid_hw: tuple[int, int],
    *,
    stride: int = 4,
    bottom_px: Int[Tensor, "b"] | None = None,
) -> Bool[Tensor, "b h w"]:
    """True where a cell's pixel lies on its image, False on padding and on the lowest `bottom_px` rows.

    Args:
        sizes_hw: every image's own height and width inside the padded batch.
        grid_hw: cells of the padded batch.
        bottom_px: rows at the bottom that are not to be trusted; see `bottom_margin`.
    """
    rows = torch.arange(grid_hw[0], device=sizes_hw.device) * stride + stride // 2
    columns = torch.arange(grid_hw[1], device=sizes_hw.device) * stride + stride // 2
    heights = sizes_hw[:, 0] if bottom_px is None else sizes_hw[:, 0] - bottom_px
    return (rows < heights[:, None])[:, :, None] & (columns < sizes_hw[:, 1, None])[:, None, :]


def bottom_margin(resized_h: Int[Tensor, "b"], original_h: Int[Tensor, "b"], *, px: int = 10) -> Int[Tensor, "b"]:
    """Rows of the resized image that `px` rows of the original one became: COCO's boxes are unreliable there."""
    return (px * resized_h) // original_h


def color_similarity(
    lab: Float[Tensor, "b 3 h w"],
    valid: Bool[Tensor, "b h w"],
    *,
    theta: float = 2.0,
    size: int = 3,
    dilation: int = 2,
) -> Float[Tensor, "b k h w"]:
    """Similarity in [0, 1] of every cell's colour to each neighbour's, 0 where the neighbour is not valid.

    Neighbours come in the order of `undirected_offsets`, then the same with opposite sign.

    Source: BoxInst (arXiv 2012.02310), section 3.2: exp(-distance / theta).
    """
    offsets = undirected_offsets(size, dilation)
    both = [*offsets, *((-dy, -dx) for dy, dx in offsets)]
    usable = valid[:, None].to(lab.dtype)
    near = [torch.exp(-(lab - _shifted(lab, step)).norm(dim=1) / theta) * _shifted(usable, step)[:, 0] for step in both]
    return torch.stack(near, dim=1)


def color_edges(
    lab: Float[Tensor, "b 3 h w"],
    valid: Bool[Tensor, "b h w"],
    *,
    tau: float = 0.3,
    theta: float = 2.0,
    size: int = 3,
    dilation: int = 2,
    features: Float[Tensor, "b c h w"] | None = None,
) -> Int[Tensor, "b h w"]:
    """Where neighbours are alike, similarity at least `tau`, as bits at the pair's first cell.

    With d offsets, bit i says it for the step of offset i from the first cell to the second (the second one valid), bit
    d + i for the way back (the first one valid). Neighbours that are not valid or off the grid are never alike, at any
    `tau`. uint8 for a 3 x 3 neighbourhood, else int64.

    Args:
        features: where given, the colours' similarity is multiplied by exp(-|f_i - f_j|) of these.

    Source: BoxInst (arXiv 2012.02310), section 3.2; the limit is applied to the distance, -theta ln(tau). With
    features: SIM (arXiv 2303.08578).
    """
    limit = math.inf if tau <= 0 else -theta * math.log(tau)
    offsets = undirected_offsets(size, dilation)
    kind = torch.uint8 if len(offsets) == 4 else torch.int64
    edges = torch.zeros(lab.shape[0], *lab.shape[2:], dtype=kind, device=lab.device)
    for index, offset in enumerate(offsets):
        first, second = pair_slices(offset, lab.shape[2], lab.shape[3])
        apart = _squared_distance(lab, first, second)
        alike = apart <= limit**2
        if features is not None:
            alike = apart.sqrt() + theta * _squared_distance(features, first, second).sqrt() <= limit
        there, back = alike & valid[(..., *second)], alike & valid[(..., *first)]
        edges[(..., *first)] |= (there.to(kind) << index) | (back.to(kind) << (len(offsets) + index))
    return edges


def pair_slices(offset: Offset, h: int, w: int) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Rows and columns of all first cells whose second cell is on the grid, and of those second cells."""
    (rows, rows_of_second), (columns, columns_of_second) = _overlap(offset[0], h), _overlap(offset[1], w)
    return (rows, columns), (rows_of_second, columns_of_second)


def _squared_distance(
    planes: Float[Tensor, "b c h w"], first: tuple[slice, slice], second: tuple[slice, slice]
) -> Float[Tensor, "b h w"]:
    return (planes[(..., *first)] - planes[(..., *second)]).square().sum(dim=1)


def _overlap(step: int, length: int) -> tuple[slice, slice]:
    low, high = max(0, -step), max(0, -step, length - max(0, step))
    return slice(low, high), slice(low + step, max(high + step, low + step))


def _shifted(values: Float[Tensor, "b c h w"], step: Offset) -> Float[Tensor, "b c h w"]:
    result = torch.zeros_like(values)
    first, second = pair_slices(step, values.shape[2], values.shape[3])
    result[(..., *first)] = values[(..., *second)]
    return result
