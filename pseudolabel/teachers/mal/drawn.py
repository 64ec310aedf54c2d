"""Drawn objects over crops: silhouettes filled with pieces of photographs, whose masks are known to the pixel.

What losses over boxes leave open is what a mask looks like that does not fill its box, a slanted stick, a frame, a
thing with limbs; an ellipse as a start answers it wrongly, and colours alone seldom correct that. Here is a lesson that
needs no annotated mask: shapes are drawn at random, filled with a piece of another crop, laid over a third one, and the
network is asked for them by their tight box as for any object. Other drawn things lie behind the object or in front of
it; what these hide is no part of its mask. Of half of the other things the network is told the box.

That synthetic objects on photographs teach where objects end is the idea of Cut, Paste and Learn (Dwibedi et al., ICCV
2017) and of copy-paste (Ghiasi et al., CVPR 2021); drawn shapes by their boxes are this project's own.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from pseudolabel.teachers.mal.crops import CropBatch, cell_centres, cue_planes
from pseudolabel.teachers.mal.network import STRIDE
from pseudolabel.teachers.mal.silhouettes import silhouettes

OTHERS = 0.6  # share of the objects with another thing behind or in front of them
HIDERS = 0.6  # share of these things that lie in front, where that leaves the box tight
TOLD = 0.5  # share of these things whose boxes the network is told
MASK_TOLD = 0.7  # share of these whose masks it is told, too
WRONG = 0.5  # share of these masks that run over the object as well
ROUGH = 0.06  # how far the sides of such a mask lie from the truth, in sides
COARSE = 0.5  # share of the crops that show a small object enlarged
LEAST_LEFT = 0.5  # of an object with something in front of it
_COARSEST_PX = 24


@dataclass(frozen=True, slots=True)
class DrawnCrops:
    """Crops with one drawn object each, as the network wants them, and its mask."""

    rgb: Float[Tensor, "b 3 H W"]
    cues: Float[Tensor, "b c h w"]
    masks: Float[Tensor, "b h w"]  # share of every cell of the stride-4 grid
    box_in_crop: Float[Tensor, "b 4"]  # in pixels of the crop


@dataclass(frozen=True, slots=True)
class Framing:
    """How a box lies in its crop: `room` on every side, give or take, and shifted, all in sides of the box."""

    room: float
    room_jitter: float
    jitter: float


def drawn_crops(batch: CropBatch, count: int, size: int, framing: Framing) -> DrawnCrops:
    """`count` crops of `size` x `size` pixels, by torch's random numbers.

    Args:
        batch: whose canvases give the grounds and what the objects are filled with.
    """
    device = batch.boxes.device
    own_box = _boxes(count, size, framing).to(device)
    other_box = _boxes_over(own_box)
    shapes, other_shapes = (silhouettes(count).to(device) for _ in range(2))
    own, other = _laid(shapes, own_box, size), _laid(other_shapes, other_box, size)
    there = _drawn_by_lot(count, OTHERS, device)
    own, other = _softened(own, other * _planes(there))
    hides = _leaves_box_tight(own, other) & _drawn_by_lot(count, HIDERS, device)
    seen = own * (1 - other * _planes(hides))
    rgb = _piece(batch, _any_of(batch, count), size, (0.35, 0.95), turn=0.0)
    rgb = torch.lerp(rgb, _filling(batch, count, size), other)
    rgb = _coarsened(torch.lerp(rgb, _filling(batch, count, size), seen))
    told = there & _drawn_by_lot(count, TOLD, device)
    claims = _claims(_laid(other_shapes, _roughly(other_box), size), seen, told)
    cues = _cues(own_box, other_box * told[:, None], claims)
    return DrawnCrops(rgb, cues, F.avg_pool2d(seen, STRIDE)[:, 0], own_box)


def _claims(
    other: Float[Tensor, "b 1 H W"], seen: Float[Tensor, "b 1 H W"], told: Bool[Tensor, "b"]
) -> Float[Tensor, "b h w"]:
    """What a network would think of the other things' masks: blurred, and some of them over the object as well."""
    known = told & _drawn_by_lot(len(told), MASK_TOLD, told.device)
    wrong = _drawn_by_lot(len(told), WRONG, told.device)
    mask = other * (1 - seen * _planes(~wrong)) * _planes(known)
    cells = F.avg_pool2d(mask, STRIDE)
    return F.avg_pool2d(cells, 3, 1, 1, count_include_pad=False)[:, 0]


def _roughly(box: Float[Tensor, "b 4"]) -> Float[Tensor, "b 4"]:
    """Boxes whose sides lie up to `ROUGH` of a side from the given ones."""
    span = (box[:, 2:] - box[:, :2]).repeat(1, 2)
    return box + ROUGH * span * (2 * torch.rand(len(box), 4, device=box.device) - 1)


def _boxes(count: int, size: int, framing: Framing) -> Float[Tensor, "b 4"]:
    room = (framing.room + framing.room_jitter * (2 * torch.rand(count, 1) - 1)).clamp(min=0.05)
    side = (size / (1 + 2 * room)).expand(count, 2)
    middle = size / 2 + framing.jitter * (2 * torch.rand(count, 2) - 1) * side
    return torch.cat([middle - side / 2, middle + side / 2], dim=1)


def _boxes_over(box: Float[Tensor, "b 4"]) -> Float[Tensor, "b 4"]:
    """Boxes whose middles lie in the given ones, with a quarter to all of their sides and some more."""
    span = box[:, 2:] - box[:, :2]
    half = span * (0.25 + 0.9 * torch.rand(len(box), 2, device=box.device)) / 2
    middle = box[:, :2] + span * torch.rand(len(box), 2, device=box.device)
    return torch.cat([middle - half, middle + half], dim=1)


def _laid(shapes: Float[Tensor, "b g g"], box: Float[Tensor, "b 4"], size: int) -> Float[Tensor, "b 1 H W"]:
    """The shapes where their boxes lie in the crop, zero elsewhere."""
    span, middle = (box[:, 2:] - box[:, :2]) / size, (box[:, 2:] + box[:, :2]) / size - 1
    theta = torch.cat([torch.diag_embed(1 / span), (-middle / span)[:, :, None]], dim=2)
    grid = F.affine_grid(theta, [len(box), 1, size, size], align_corners=False)
    return F.grid_sample(shapes[:, None], grid, align_corners=False)


def _softened(*planes: Float[Tensor, "b 1 H W"]) -> list[Float[Tensor, "b 1 H W"]]:
    """The planes with outlines as soft as lenses make them: of each crop 1, 3 or 5 pixels wide."""
    width = torch.randint(3, (len(planes[0]), 1, 1, 1), device=planes[0].device)

    def soft(plane: Tensor) -> Tensor:
        some, more = (F.avg_pool2d(plane, side, 1, side // 2, count_include_pad=False) for side in (3, 5))
        softer: Tensor = torch.where(width == 0, plane, torch.where(width == 1, some, more))
        return softer

    return [soft(plane) for plane in planes]


def _leaves_box_tight(own: Float[Tensor, "b 1 H W"], other: Float[Tensor, "b 1 H W"]) -> Bool[Tensor, "b"]:
    """Whether, with the other in front, enough of the object is left and its box stays tight to half a cell."""
    before, after = own[:, 0] > 0.5, own[:, 0] * (1 - other[:, 0]) > 0.5
    enough = after.sum(dim=(1, 2)) >= LEAST_LEFT * before.sum(dim=(1, 2))
    moved = torch.stack([(a - b).abs() for a, b in zip(_sides(before), _sides(after), strict=True)])
    return enough & (moved.amax(dim=0) <= STRIDE // 2)


def _sides(masks: Bool[Tensor, "b h w"]) -> list[Int[Tensor, "b"]]:
    """Cells before the first and behind the last column and row of each mask."""
    shadows = [masks.any(dim=axis).float() for axis in (1, 2)]
    return [line.argmax(dim=1) for shadow in shadows for line in (shadow, shadow.flip(1))]


def _any_of(batch: CropBatch, count: int) -> Int[Tensor, "b"]:
    return torch.randint(len(batch.boxes), (count,), device=batch.boxes.device)


def _piece(
    batch: CropBatch, which: Int[Tensor, "b"], size: int, shares: tuple[float, float], *, turn: float
) -> Float[Tensor, "b 3 H W"]:
    """Pieces of canvases whose sides are a share of theirs, turned by up to `turn`, half of them mirrored."""
    count, device = len(which), which.device
    share = shares[0] + (shares[1] - shares[0]) * torch.rand(count, 2, device=device)
    angle = turn * (2 * torch.rand(count, device=device) - 1)
    mirror = 1 - 2 * _drawn_by_lot(count, 0.5, device).float()
    theta = torch.zeros(count, 2, 3, device=device)
    theta[:, 0, 0], theta[:, 0, 1] = mirror * angle.cos() * share[:, 0], -angle.sin() * share[:, 0]
    theta[:, 1, 0], theta[:, 1, 1] = mirror * angle.sin() * share[:, 1], angle.cos() * share[:, 1]
    theta[:, :, 2] = (1 - share) * (2 * torch.rand(count, 2, device=device) - 1)
    grid = F.affine_grid(theta, [count, 1, size, size], align_corners=False)
    return F.grid_sample(batch.canvas[which].float(), grid, padding_mode="reflection", align_corners=False)


def _filling(batch: CropBatch, count: int, size: int) -> Float[Tensor, "b 3 H W"]:
    """Small pieces of canvases, turned; a third of them faded towards one colour, all in another tint and shade."""
    device = batch.boxes.device
    piece = _piece(batch, _any_of(batch, count), size, (0.1, 0.5), turn=math.pi)
    faded = _drawn_by_lot(count, 0.35, device)
    keep = torch.where(faded, 0.4 * torch.rand(count, device=device), 1.0)[:, None, None, None]
    tint = 1 + 0.3 * (2 * torch.rand(count, 3, 1, 1, device=device) - 1)
    slope = 0.25 * (2 * torch.rand(count, 1, 1, 1, device=device) - 1)
    shade = 1 + slope * torch.linspace(-1, 1, size, device=device)[:, None]
    mean = piece.mean(dim=(2, 3), keepdim=True)
    return (torch.lerp(mean, piece, keep) * tint * shade).clamp(0, 255)


def _coarsened(rgb: Float[Tensor, "b 3 H W"]) -> Float[Tensor, "b 3 H W"]:
    """The crops, some of them shrunk and enlarged again, as those of small objects are."""
    size = rgb.shape[-1]
    return torch.cat([_coarse(one, size) if torch.rand(()) < COARSE else one for one in rgb[:, None]])


def _coarse(rgb: Float[Tensor, "1 3 H W"], size: int) -> Float[Tensor, "1 3 H W"]:
    side = int(torch.randint(_COARSEST_PX, size, ()))
    small = F.interpolate(rgb, size=(side, side), mode="bilinear", antialias=True, align_corners=False)
    return F.interpolate(small, size=(size, size), mode="bilinear", align_corners=False)


def _cues(
    box: Float[Tensor, "b 4"], other: Float[Tensor, "b 4"], claims: Float[Tensor, "b h w"]
) -> Float[Tensor, "b c h w"]:
    """The boxes as the network is told of them; half of the others as if they were of the object's class."""
    count, device, size = len(box), box.device, STRIDE * claims.shape[-1]
    rect = torch.tensor([0.0, 0.0, size, size], device=device).expand(count, 4)
    x, y = cell_centres(rect, torch.zeros(count, dtype=torch.bool, device=device), size // STRIDE)
    same = _drawn_by_lot(count, 0.5, device)[:, None]
    nothing = torch.zeros(count, 3, 1, 1, dtype=torch.uint8, device=device)
    return cue_planes(CropBatch(nothing, box, other[:, None], same, rect[:, 2:], ()), x, y, claims)


def _drawn_by_lot(count: int, share: float, device: torch.device) -> Bool[Tensor, "b"]:
    return torch.rand(count, device=device) < share


def _planes(chosen: Bool[Tensor, "b"]) -> Float[Tensor, "b 1 1 1"]:
    return chosen.float()[:, None, None, None]
