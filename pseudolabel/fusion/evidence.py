"""What tells a good mask from a bad one without knowing the truth: its sources, the picture, its box and its rivals.

Masks fail where sources disagree, where the picture shows no edge along the contour, where what lies just inside looks
like what lies just outside, where an object fills little of its box, and where other boxes cover its own.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from jaxtyping import Bool, Float64, UInt8
from scipy import ndimage

from pseudolabel.candidates import GivenBox
from pseudolabel.fusion.surroundings import Surroundings
from pseudolabel.masks import Grid, resample

_RING = 0.12  # width of the rings on both sides of a contour, in square roots of the mask's area
_LEAST_RING = 3.0  # cells
_POINTS = 32  # per side of a box, at which it is looked whether another box covers it
_DOUBT = 0.5  # cells' worth of it in every colour of a histogram


@dataclass(frozen=True, slots=True)
class Evidence:
    """Signs of a good mask, each in [0, 1]; None where there was nothing to look at."""

    consensus: float | None = None  # how sure the sources are of the mask; None where they only say yes and no
    prompted: float | None = None  # 1: a source that was asked by the box speaks, such as a teacher; 0: none does
    contrast: float | None = None  # Jensen-Shannon divergence, in bits, of the colours just inside and just outside
    edges: float | None = None  # share of the contour where the colour changes more than it does for half the cells
    covered: float | None = None  # share of the box that other given boxes cover
    fill: float | None = None  # share of the box's pixels that are the mask's
    solidity: float | None = None  # share that the mask has of its rows between their first and last pixel
    extent: float | None = None  # share of the box that the mask's own tight box has

    def columns(self) -> dict[str, float | None]:
        """As the cell of a row."""
        return asdict(self)


def shape_evidence(pixels: Bool[np.ndarray, "h w"]) -> dict[str, float]:
    """How a mask lies in the window of its box: `fill`, `solidity` and `extent`; all 0 for an empty one."""
    rows, columns = np.flatnonzero(pixels.any(axis=1)), np.flatnonzero(pixels.any(axis=0))
    if not rows.size:
        return {"fill": 0.0, "solidity": 0.0, "extent": 0.0}
    used = pixels[rows]
    spans = used.shape[1] - used.argmax(axis=1) - used[:, ::-1].argmax(axis=1)
    extent = (rows[-1] - rows[0] + 1) * (columns[-1] - columns[0] + 1)
    area = float(np.count_nonzero(pixels))
    return {"fill": area / pixels.size, "solidity": area / float(spans.sum()), "extent": float(extent / pixels.size)}


def color_evidence(
    pixels: Bool[np.ndarray, "h w"], window: Grid, surroundings: Surroundings
) -> dict[str, float | None]:
    """What the picture says of a mask: `contrast` and `edges`; None where the mask has no contour on the cells."""
    mask = resample(pixels.astype(np.float32), window, surroundings.grid) > 0.5
    if not mask.any() or mask.all():
        return {"contrast": None, "edges": None}
    return {"contrast": _ring_contrast(mask, surroundings.cluster), "edges": _edge_share(mask, surroundings)}


def covered_shares(boxes: Sequence[GivenBox]) -> list[float]:
    """Which share of every box the others cover together, to within the 32 x 32 points that are looked at."""
    if not boxes:
        return []
    corners = np.array([box.box_xyxy for box in boxes], dtype=np.float64)
    return [_covered(corners, place) for place in range(len(corners))]


def _covered(corners: Float64[np.ndarray, "n 4"], place: int) -> float:
    x0, y0, x1, y1 = corners[place]
    touching = (corners[:, 0] < x1) & (corners[:, 2] > x0) & (corners[:, 1] < y1) & (corners[:, 3] > y0)
    touching[place] = False
    if not touching.any():
        return 0.0
    steps = (np.arange(_POINTS) + 0.5) / _POINTS
    x, y = x0 + steps * (x1 - x0), y0 + steps * (y1 - y0)
    rivals = corners[touching]
    across = (x > rivals[:, 0, None]) & (x < rivals[:, 2, None])
    down = (y > rivals[:, 1, None]) & (y < rivals[:, 3, None])
    return float(((down.astype(np.float32).T @ across.astype(np.float32)) > 0).mean())


def _ring_contrast(mask: Bool[np.ndarray, "h w"], cluster: UInt8[np.ndarray, "h w"]) -> float:
    """Jensen-Shannon divergence between the colours of two rings along the contour, one on either side of it."""
    width = max(_LEAST_RING, _RING * math.sqrt(float(mask.sum())))
    inside = mask & (ndimage.distance_transform_edt(mask) <= width)
    outside = ~mask & (ndimage.distance_transform_edt(~mask) <= width)
    colours = int(cluster.max()) + 1
    return _divergence(*(np.bincount(cluster[ring], minlength=colours) + _DOUBT for ring in (inside, outside)))


def _divergence(first: Float64[np.ndarray, " k"], second: Float64[np.ndarray, " k"]) -> float:
    """Jensen-Shannon divergence of two positive histograms, in bits: 0 for the same, towards 1 for disjoint ones."""
    p, q = first / first.sum(), second / second.sum()
    middle = (p + q) / 2
    return float(((p * np.log2(p / middle)).sum() + (q * np.log2(q / middle)).sum()) / 2)


def _edge_share(mask: Bool[np.ndarray, "h w"], surroundings: Surroundings) -> float | None:
    """Share of the places where the contour runs at which colours two cells apart differ more than the median."""
    lab = surroundings.lab
    steps = [(mask[2:] != mask[:-2], lab[2:] - lab[:-2]), (mask[:, 2:] != mask[:, :-2], lab[:, 2:] - lab[:, :-2])]
    change = [np.square(difference).sum(axis=-1) for _, difference in steps]
    crossed = np.concatenate([one[contour] for one, (contour, _) in zip(change, steps, strict=True)])
    if not crossed.size:
        return None
    return float((crossed > np.median(np.concatenate([one.ravel() for one in change]))).mean())
