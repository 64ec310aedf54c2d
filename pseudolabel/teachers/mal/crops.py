"""Crops around boxes: cut once per object with room around it, then sampled in batches.

An object's **canvas** is a square uint8 picture of its box with `ROOM` of the box's side around it on every side; both
axes are scaled alone, so that thin objects fill it, too. Training cuts differently placed crops from a batch of
canvases with one `grid_sample`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor
from torch.nn import functional as F

from pseudolabel.teachers.mal.network import STRIDE

ROOM = 0.5
MIN_ROOM_PX = 6.0
BEYOND = 127.5  # gray level where there is no image
CANVAS_CELLS = 96  # side of a mask over a canvas
NEIGHBOURS = 24  # other boxes of the image that an object knows of, those that overlap it most


@dataclass(frozen=True, slots=True)
class CropBatch:
    """A batch of objects with their canvases."""

    canvas: UInt8[Tensor, "b 3 S S"]
    boxes: Float[Tensor, "b 4"]  # xyxy, image pixels
    others: Float[Tensor, "b k 4"]  # boxes of the same image that overlap; all zero where there are fewer
    rivals: Bool[Tensor, "b k"]  # which of them are of the object's own class
    sizes_wh: Float[Tensor, "b 2"]  # of the images
    images: tuple[str, ...]
    masks: UInt8[Tensor, "b T T"] | None = None  # what an earlier round found, over the canvases; 255 = certain
    scores: Float[Tensor, "b"] | None = None  # how much each of them is believed
    claims: UInt8[Tensor, "b T T"] | None = None  # what masks of the image's other objects cover, over the canvases

    def to(self, device: str | torch.device) -> "CropBatch":
        return take(self, torch.arange(len(self.boxes)), device)


@dataclass(frozen=True, slots=True)
class Views:
    """Crops cut from canvases, with all that a loss or a network wants to know about them."""

    rgb: Float[Tensor, "b 3 H W"]
    cues: Float[Tensor, "b c h w"]
    valid: Bool[Tensor, "b h w"]  # the cell's centre is on the image
    box_in_crop: Float[Tensor, "b 4"]  # in pixels of the crop
    rect: Float[Tensor, "b 4"]  # what the crop shows, in image pixels
    masks: Float[Tensor, "b h w"] | None  # the batch's masks as the crop shows them
    covered: Float[Tensor, "b h w"] | None = None  # share of every cell that a pasted object hides


def take(batch: CropBatch, index: Int[Tensor, "n"], device: str | torch.device = "cpu") -> CropBatch:
    """These objects of a batch, on a device."""
    return CropBatch(
        *(getattr(batch, name)[index].to(device) for name in ("canvas", "boxes", "others", "rivals", "sizes_wh")),
        images=tuple(batch.images[place] for place in index.tolist()),
        masks=None if batch.masks is None else batch.masks[index].to(device),
        scores=None if batch.scores is None else batch.scores[index].to(device),
        claims=None if batch.claims is None else batch.claims[index].to(device),
    )


def widened(
    boxes: Float[Tensor, "n 4"], room: Float[Tensor, "n 1"] | float, *, least_px: float
) -> Float[Tensor, "n 4"]:
    """Boxes with `room` times their side, and at least `least_px` pixels, added on every side."""
    margin = ((boxes[:, 2:] - boxes[:, :2]) * room).clamp(min=least_px)
    return torch.cat([boxes[:, :2] - margin, boxes[:, 2:] + margin], dim=1)


def canvas_extent(boxes: Float[Tensor, "n 4"]) -> Float[Tensor, "n 4"]:
    """The rectangles that canvases show, in image pixels."""
    return widened(boxes, ROOM, least_px=MIN_ROOM_PX)


def cut_canvases(image: UInt8[np.ndarray, "h w 3"], boxes: Float[Tensor, "n 4"], size: int) -> UInt8[Tensor, "n 3 S S"]:
    """The canvases of an image's objects; mid-grey beyond the image. Shrinking is antialiased."""
    pixels = torch.from_numpy(image).permute(2, 0, 1)
    canvases = [_cut(pixels, extent, size) for extent in canvas_extent(boxes).tolist()]
    return torch.stack(canvases) if canvases else pixels.new_zeros(0, 3, size, size)


def _cut(pixels: UInt8[Tensor, "3 h w"], extent: Sequence[float], size: int) -> UInt8[Tensor, "3 S S"]:
    """First the whole pixels around the extent, shrunk if they are too many, then the extent itself."""
    h, w = pixels.shape[1:]
    left, top = int(np.floor(extent[0])), int(np.floor(extent[1]))
    right, bottom = int(np.ceil(extent[2])), int(np.ceil(extent[3]))
    inner = pixels[:, max(top, 0) : min(bottom, h), max(left, 0) : min(right, w)].float()
    pad = (max(-left, 0), max(right - w, 0), max(-top, 0), max(bottom - h, 0))
    patch = F.pad(inner, pad, value=BEYOND)[None]
    span = (extent[2] - extent[0], extent[3] - extent[1])
    sides = tuple(
        min(length, max(1, round(size * length / width)))
        for length, width in zip((bottom - top, right - left), (span[1], span[0]), strict=True)
    )
    patch = F.interpolate(patch, size=sides, mode="bilinear", antialias=True, align_corners=False)
    scale = torch.tensor([span[0] / (right - left), span[1] / (bottom - top)])
    middle = torch.tensor([extent[0] + extent[2] - left - right, extent[1] + extent[3] - top - bottom])
    middle = middle / torch.tensor([right - left, bottom - top])
    theta = torch.cat([torch.diag(scale), middle[:, None]], dim=1)[None]
    grid = F.affine_grid(theta, [1, 3, size, size], align_corners=False)
    cut = F.grid_sample(patch, grid, padding_mode="border", align_corners=False)[0]
    return cut.round().clamp(0, 255).to(torch.uint8)


def neighbour_boxes(
    boxes: Float[Tensor, "n 4"], classes: Int[Tensor, "n"]
) -> tuple[Float[Tensor, "n k 4"], Bool[Tensor, "n k"]]:
    """For each box of an image the other boxes that overlap it, most first, zeros behind them; which have its class."""
    which, there = neighbours(boxes)
    same = (classes[which] == classes[:, None]) & there
    missing = NEIGHBOURS - which.shape[1]
    return F.pad(boxes[which] * there[..., None], (0, 0, 0, missing)), F.pad(same, (0, missing))


def neighbours(boxes: Float[Tensor, "n 4"]) -> tuple[Int[Tensor, "n k"], Bool[Tensor, "n k"]]:
    """For each box of an image the numbers of those that overlap it most, and which of these really overlap it."""
    low = torch.maximum(boxes[:, None, :2], boxes[None, :, :2])
    high = torch.minimum(boxes[:, None, 2:], boxes[None, :, 2:])
    shared = (high - low).clamp(min=0).prod(dim=2)
    shared.fill_diagonal_(0)
    overlap, which = shared.topk(min(NEIGHBOURS, len(boxes)), dim=1)
    return which, overlap > 0


def claimed(
    boxes: Float[Tensor, "n 4"], frames: Float[Tensor, "n 4"], masks: Float[Tensor, "n h w"]
) -> UInt8[Tensor, "n T T"]:
    """What others cover of every canvas of an image: the largest probability of the masks whose boxes overlap its box.

    Args:
        boxes: of the image, in its pixels, on the CPU.
        frames: the rectangles that the masks cover, in image pixels.
        masks: on any device.

    Returns:
        On `CANVAS_CELLS` cells a side, 255 = certain, on the masks' device.
    """
    result = torch.zeros(len(boxes), CANVAS_CELLS, CANVAS_CELLS, dtype=torch.uint8, device=masks.device)
    extents = canvas_extent(boxes)
    for place, (which, overlaps) in enumerate(zip(*neighbours(boxes), strict=True)):
        others = which[overlaps]
        if len(others):
            over = _over_canvas(extents[place], frames[others], masks[others.to(masks.device)])
            result[place] = (over.amax(dim=0) * 255).round().to(torch.uint8)
    return result


def _over_canvas(
    canvas: Float[Tensor, "4"], frames: Float[Tensor, "k 4"], masks: Float[Tensor, "k h w"]
) -> Float[Tensor, "k T T"]:
    """Masks where they lie on a canvas, zero elsewhere."""
    side = frames[:, 2:] - frames[:, :2]
    shift = (canvas[2:] + canvas[:2] - frames[:, 2:] - frames[:, :2]) / side
    theta = torch.cat([torch.diag_embed((canvas[2:] - canvas[:2]) / side), shift[:, :, None]], dim=2).to(masks.device)
    grid = F.affine_grid(theta, [len(masks), 1, CANVAS_CELLS, CANVAS_CELLS], align_corners=False)
    return F.grid_sample(masks[:, None], grid, align_corners=False)[:, 0]


def sample_views(batch: CropBatch, rect: Float[Tensor, "b 4"], flip: Bool[Tensor, "b"], size: int) -> Views:
    """Crops of `size` x `size` pixels that show `rect` of each object's image, mirrored where `flip` says so."""
    extent = canvas_extent(batch.boxes)
    span = extent[:, 2:] - extent[:, :2]
    scale = (rect[:, 2:] - rect[:, :2]) / span
    shift = (rect[:, 2:] + rect[:, :2] - extent[:, 2:] - extent[:, :2]) / span
    theta = torch.zeros(len(rect), 2, 3, device=rect.device)
    theta[:, 0, 0] = torch.where(flip, -scale[:, 0], scale[:, 0])
    theta[:, 1, 1] = scale[:, 1]
    theta[:, :, 2] = shift
    grid = F.affine_grid(theta, [len(rect), 3, size, size], align_corners=False)
    rgb = F.grid_sample(batch.canvas.float(), grid, align_corners=False)
    x, y = cell_centres(rect, flip, size // STRIDE)
    masks, claims = (
        None if planes is None else _masks(planes, theta, size // STRIDE) for planes in (batch.masks, batch.claims)
    )
    cues = cue_planes(batch, x, y, claims)
    return Views(rgb, cues, _on_image(x, y, batch.sizes_wh), _box_in_crop(batch.boxes, rect, flip, size), rect, masks)


def _masks(masks: UInt8[Tensor, "b T T"], theta: Float[Tensor, "b 2 3"], cells: int) -> Float[Tensor, "b h w"]:
    grid = F.affine_grid(theta, [len(masks), 1, cells, cells], align_corners=False)
    return F.grid_sample(masks[:, None].float() / 255, grid, align_corners=False)[:, 0]


def cell_centres(
    rect: Float[Tensor, "b 4"], flip: Bool[Tensor, "b"], cells: int
) -> tuple[Float[Tensor, "b w"], Float[Tensor, "b h"]]:
    """Image coordinates of the columns and rows of a crop's grid."""
    t = (torch.arange(cells, device=rect.device) + 0.5) / cells
    x = rect[:, :1] + (rect[:, 2:3] - rect[:, :1]) * t
    y = rect[:, 1:2] + (rect[:, 3:4] - rect[:, 1:2]) * t
    return torch.where(flip[:, None], x.flip(1), x), y


def cue_planes(
    batch: CropBatch, x: Float[Tensor, "b w"], y: Float[Tensor, "b h"], claims: Float[Tensor, "b h w"] | None
) -> Float[Tensor, "b 10 h w"]:
    """What the network is told of boxes: in the box; distances to its four sides in box sides, cut at 1; in a smaller
    and in a larger box of another class; in a smaller and in a larger one of its own class; what other objects' masks
    cover, as far as they are known.
    """
    boxes = batch.boxes
    side = (boxes[:, 2:] - boxes[:, :2]).clamp(min=1e-3)
    left, right = (x - boxes[:, 0:1]) / side[:, 0:1], (boxes[:, 2:3] - x) / side[:, 0:1]
    top, bottom = (y - boxes[:, 1:2]) / side[:, 1:2], (boxes[:, 3:4] - y) / side[:, 1:2]
    inside = (torch.minimum(left, right) >= 0)[:, None, :] & (torch.minimum(top, bottom) >= 0)[:, :, None]
    shape = inside.shape
    distances = [value[:, None, :].expand(shape) for value in (left, right)]
    distances += [value[:, :, None].expand(shape) for value in (top, bottom)]
    known = torch.zeros(shape, device=x.device) if claims is None else claims
    return torch.stack(
        [inside.float(), *(d.clamp(-1, 1) for d in distances), *_other_planes(batch, x, y), known], dim=1
    )


def _other_planes(batch: CropBatch, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    others = batch.others
    column = (x[:, None] >= others[..., 0:1]) & (x[:, None] < others[..., 2:3])
    row = (y[:, None] >= others[..., 1:2]) & (y[:, None] < others[..., 3:4])
    area = (others[..., 2:] - others[..., :2]).prod(dim=2)
    smaller = (area < (batch.boxes[:, 2:] - batch.boxes[:, :2]).prod(dim=1, keepdim=True)) & (area > 0)
    own = batch.rivals

    def covered(chosen: Tensor) -> Tensor:
        hits = torch.einsum("bkh,bkw->bhw", (row & chosen[..., None]).float(), column.float())
        return (hits > 0).float()

    return covered(smaller & ~own), covered(~smaller & ~own), covered(smaller & own), covered(~smaller & own)


def _on_image(x: Tensor, y: Tensor, sizes_wh: Tensor) -> Bool[Tensor, "b h w"]:
    columns, rows = (x >= 0) & (x < sizes_wh[:, 0:1]), (y >= 0) & (y < sizes_wh[:, 1:2])
    return rows[:, :, None] & columns[:, None, :]


def _box_in_crop(boxes: Tensor, rect: Tensor, flip: Tensor, size: int) -> Float[Tensor, "b 4"]:
    scale = size / (rect[:, 2:] - rect[:, :2])
    low, high = (boxes[:, :2] - rect[:, :2]) * scale, (boxes[:, 2:] - rect[:, :2]) * scale
    left = torch.where(flip, size - high[:, 0], low[:, 0])
    right = torch.where(flip, size - low[:, 0], high[:, 0])
    return torch.stack([left, low[:, 1], right, high[:, 1]], dim=1)
