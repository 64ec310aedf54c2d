"""Random silhouettes: sticks, blobs, polygons, blocks, bodies with limbs, frames; each touches its tight box all round.

They are drawn on the square from -1 to 1, then stretched to their tight box, so that the box of a slanted stick is
filled by as little as a twentieth.
"""

import math
from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

CELLS = 96  # a side
_LEAST_CELLS = 30  # of a shape
_Shape = Callable[[Tensor, Tensor], Bool[Tensor, "g g"]]


def silhouettes(count: int) -> Float[Tensor, "b g g"]:
    """So many shapes by torch's random numbers, on the CPU; 1 inside, and between 0 and 1 on the outline."""
    return torch.stack([_silhouette() for _ in range(count)])


def _silhouette() -> Float[Tensor, "g g"]:
    x, y = _square()
    while True:
        shape = _any_shape()(x, y)
        if int(shape.sum()) >= _LEAST_CELLS:
            return _stretched(shape.float())


def _square() -> tuple[Float[Tensor, "g g"], Float[Tensor, "g g"]]:
    line = (torch.arange(CELLS) + 0.5) * (2 / CELLS) - 1
    return line[None, :].expand(CELLS, CELLS), line[:, None].expand(CELLS, CELLS)


def _any_shape() -> _Shape:
    return list(_SHAPES)[int(torch.multinomial(torch.tensor(list(_SHAPES.values())), 1))]


def _stretched(shape: Float[Tensor, "g g"]) -> Float[Tensor, "g g"]:
    rows, columns = (shape.amax(dim=axis).nonzero()[:, 0] for axis in (1, 0))
    part = shape[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return F.interpolate(part[None, None], size=(CELLS, CELLS), mode="bilinear", align_corners=False)[0, 0]


def _stick(x: Tensor, y: Tensor) -> Bool[Tensor, "g g"]:
    """Straight or bent, tapering, some with a head."""
    along, across = _turned(x, y, _between(0, math.pi))
    across = across - _between(-0.35, 0.35) * (along**2 - 0.4)
    half = _log_between(0.03, 0.3)
    width = half * (1 + _between(-0.8, 0.8) * along)
    if _chance(0.4):
        width = torch.where(along > _between(0.3, 0.6), half * _between(1, 4), width)
    return (across.abs() < width.clamp(min=0.02)) & (along.abs() < 0.95)


def _blob(x: Tensor, y: Tensor) -> Bool[Tensor, "g g"]:
    """Within a radius that is a sum of six waves around the middle."""
    turn, rough = torch.atan2(y, x), _between(0.1, 0.6)
    radius = torch.ones_like(turn)
    for k in range(1, 7):
        radius = radius + rough * torch.randn(()) / k * torch.cos(k * turn + _between(0, 2 * math.pi))
    return torch.hypot(x, y) < 0.75 * radius.clamp(0.15, 1.3)


def _polygon(x: Tensor, y: Tensor) -> Bool[Tensor, "g g"]:
    """Three to nine corners around the middle; a point is inside where its ray to the right crosses an odd number."""
    count = int(torch.randint(3, 10, ()))
    angles = (torch.arange(count) + 0.8 * torch.rand(count)) * (2 * math.pi / count)
    corners = torch.stack([angles.cos(), angles.sin()], dim=1) * (0.25 + 0.7 * torch.rand(count, 1))
    inside = torch.zeros_like(x, dtype=torch.bool)
    for (ax, ay), (bx, by) in zip(corners.tolist(), corners.roll(-1, 0).tolist(), strict=True):
        if ay != by:
            inside = inside ^ (((ay > y) != (by > y)) & (x < (bx - ax) * (y - ay) / (by - ay) + ax))
    return inside


def _block(x: Tensor, y: Tensor) -> Bool[Tensor, "g g"]:
    """Between a diamond and a rectangle, half of them turned."""
    power = _log_between(1, 9)
    a, b = _turned(x, y, _between(0, math.pi) if _chance(0.5) else _between(-0.1, 0.1))
    inside: Tensor = a.abs() ** power + (b / _between(0.25, 1)).abs() ** power < 0.7**power
    return inside


def _limbs(x: Tensor, y: Tensor) -> Bool[Tensor, "g g"]:
    """Two to five limbs of one or two parts, most of them on a body."""
    inside = torch.zeros_like(x, dtype=torch.bool)
    if _chance(0.7):
        a, b = _turned(x, y, _between(0, math.pi))
        inside = (a / _between(0.25, 0.6)) ** 2 + (b / _between(0.1, 0.35)) ** 2 < 1
    for _ in range(int(torch.randint(2, 6, ()))):
        start = 0.35 * torch.randn(2)
        for _ in range(int(torch.randint(1, 3, ()))):
            end = 1.9 * torch.rand(2) - 0.95
            inside = inside | (_distance(x, y, start, end) < _log_between(0.03, 0.2))
            start = end
    return inside


def _frame(x: Tensor, y: Tensor) -> Bool[Tensor, "g g"]:
    """A block or a blob with a round hole."""
    outer = _block(x, y) if _chance(0.5) else _blob(x, y)
    return outer & (torch.hypot(x - _between(-0.2, 0.2), y - _between(-0.2, 0.2)) > _between(0.28, 0.6))


_SHAPES: dict[_Shape, float] = {_stick: 0.25, _blob: 0.2, _polygon: 0.1, _block: 0.15, _limbs: 0.2, _frame: 0.1}


def _turned(x: Tensor, y: Tensor, angle: float) -> tuple[Tensor, Tensor]:
    cos, sin = math.cos(angle), math.sin(angle)
    return x * cos + y * sin, y * cos - x * sin


def _distance(x: Tensor, y: Tensor, start: Float[Tensor, "2"], end: Float[Tensor, "2"]) -> Float[Tensor, "g g"]:
    """From every cell to the segment."""
    step = end - start
    share = ((x - start[0]) * step[0] + (y - start[1]) * step[1]) / (step.square().sum() + 1e-6)
    share = share.clamp(0, 1)
    return torch.hypot(x - start[0] - share * step[0], y - start[1] - share * step[1])


def _between(low: float, high: float) -> float:
    return low + (high - low) * torch.rand(()).item()


def _log_between(low: float, high: float) -> float:
    return math.exp(_between(math.log(low), math.log(high)))


def _chance(share: float) -> bool:
    return torch.rand(()).item() < share
