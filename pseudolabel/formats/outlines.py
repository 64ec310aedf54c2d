"""Outlines of masks along the edges of their pixels, so that filling them gives the same mask again.

A contour through the centres of the border's pixels, as `cv2.findContours` gives it, loses half a pixel all round
wherever the filler counts pixels whose centre lies inside (pycocotools, matplotlib, shapely). These outlines run along
pixel edges, drawn in by a twentieth of a pixel: inside of it no pixel centre changes sides, and a filler that cuts
coordinates to whole pixels and paints the line itself (`cv2.fillPoly`) hits the outermost pixels of the mask, too.

Pixels that touch at a corner alone are two parts; so every ring is simple.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64
from scipy.spatial import cKDTree

from pseudolabel.masks import PixelMask

INSET_PX = 0.05
Ring = Float64[np.ndarray, "n 2"]  # x, y of its corners in pixels of the image, not closed


@dataclass(frozen=True, slots=True)
class Part:
    """A connected part of a mask: its outer ring, and one ring for each of its holes."""

    outer: Ring
    holes: tuple[Ring, ...]

    @property
    def area_px(self) -> float:
        """Of the outer ring, holes included."""
        return abs(ring_area(self.outer))


def mask_parts(mask: PixelMask) -> list[Part]:
    """The connected parts (4-neighbours) of a mask, the largest first; outer rings run clockwise, holes the other way.

    Args:
        mask: with at least one pixel set, else there is no part.
    """
    corners = _Corners(mask.pixels)
    rings = corners.rings()
    offset = np.array([mask.x0, mask.y0], dtype=np.float64)
    outers = [place for place, ring in enumerate(rings) if corners.begins_part(ring[0])]
    drawn = [_drawn_in(corners.xy[ring], is_hole=not corners.begins_part(ring[0])) + offset for ring in rings]
    holes: dict[int, list[Ring]] = {place: [] for place in outers}
    for place in sorted(set(range(len(rings))) - set(outers)):
        holes[_owner(corners, rings, place)].append(drawn[place][::-1])
    parts = [Part(drawn[place], tuple(holes[place])) for place in outers]
    return sorted(parts, key=lambda part: -part.area_px)


def one_ring(part: Part) -> Ring:
    """A part as one ring: each hole hangs on a vertical cut of no width that runs from it up to what encloses it."""
    ring = part.outer
    for hole in sorted(part.holes, key=lambda one: one[:, 1].min()):
        ring = _with_hole(ring, hole)
    return ring


def joined(rings: list[Ring]) -> Ring:
    """Rings as one, each joined to the nearest corner of those before it by a bridge of no width."""
    whole = rings[0]
    for ring in rings[1:]:
        distances, nearest = cKDTree(whole).query(ring)
        there = int(np.argmin(distances))
        whole = _spliced(whole, int(nearest[there]), np.roll(ring, -there, axis=0))
    return whole


def ring_area(ring: Ring) -> float:
    """Signed area in px, positive where the ring runs clockwise as seen (y points down)."""
    x, y = ring[:, 0], ring[:, 1]
    return float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2


class _Corners:
    """The corners of a mask's pixel edges, by row and column, and which of them a straight edge joins.

    A lattice point at which two parts touch is two corners: the one of the upper pixel and the one of the lower.
    """

    def __init__(self, pixels: Bool[np.ndarray, "h w"]) -> None:
        padded = np.pad(pixels, 1)
        upper_left, upper_right = padded[:-1, :-1], padded[:-1, 1:]
        lower_left, lower_right = padded[1:, :-1], padded[1:, 1:]
        touching = (upper_left == lower_right) & (upper_right == lower_left) & (upper_left != upper_right)
        odd = upper_left ^ upper_right ^ lower_left ^ lower_right
        y, x = np.nonzero(odd | touching)
        twice = touching[y, x]
        lattice = np.repeat(np.arange(len(y)), np.where(twice, 2, 1))
        self.xy: Int64[np.ndarray, "n 2"] = np.stack([x[lattice], y[lattice]], axis=1)
        # at a point of two corners the first one ends the edge from the left, the second one begins that to the right
        self.right_of = _pairs(np.arange(len(lattice)))
        first = np.flatnonzero(np.append(lattice[1:] == lattice[:-1], False))
        upper_is_second = upper_right[y[lattice[first]], x[lattice[first]]]
        below = np.zeros(len(lattice), dtype=np.int64)  # 1 for the one of two corners that begins the edge downwards
        below[first + 1], below[first[upper_is_second]] = 1, 1
        below[first[upper_is_second] + 1] = 0
        self.below_of = _pairs(np.lexsort([below, self.xy[:, 1], self.xy[:, 0]]))
        self._inside = lower_right[y, x][lattice]

    def rings(self) -> list[list[int]]:
        """Corners of each ring, from its upper left one on, first along the row."""
        across, down = self.right_of.tolist(), self.below_of.tolist()
        seen = bytearray(len(across))
        rings = []
        for start in range(len(across)):
            ring, at = [], start
            while not seen[at]:
                other = across[at]
                seen[at] = seen[other] = 1
                ring += [at, other]
                at = down[other]
            if ring:
                rings.append(ring)
        return rings

    def begins_part(self, corner: int) -> bool:
        """Whether the pixel below and right of a ring's first corner is one of the mask: then the ring is an outer."""
        return bool(self._inside[corner])


def _pairs(order: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, " n"]:
    """The partner of each corner, where the first is joined to the second, the third to the fourth and so on."""
    partner = np.empty(len(order), dtype=np.int64)
    partner[order[0::2]], partner[order[1::2]] = order[1::2], order[0::2]
    return partner


def _drawn_in(corners: Int64[np.ndarray, "n 2"], *, is_hole: bool) -> Ring:
    """A clockwise ring with each of its edges moved into the mask by `INSET_PX`."""
    inset = -INSET_PX if is_hole else INSET_PX
    ahead, behind = np.roll(corners, -1, axis=0) - corners, corners - np.roll(corners, 1, axis=0)
    step_x, step_y = (ahead + behind).T  # one of the two edges of a corner runs along x, the other one along y
    return corners + inset * np.stack([-np.sign(step_y), np.sign(step_x)], axis=1)


def _owner(corners: _Corners, rings: list[list[int]], hole: int) -> int:
    """The outer ring around a hole: that of the edge above the hole's first corner, or of the hole that is there."""
    ring_of = np.empty(len(corners.xy), dtype=np.int64)
    for place, ring in enumerate(rings):
        ring_of[ring] = place
    left = np.flatnonzero(corners.xy[:, 0] < corners.xy[corners.right_of, 0])
    x_from, x_to, y = corners.xy[left, 0], corners.xy[corners.right_of[left], 0], corners.xy[left, 1]
    place = hole
    while not corners.begins_part(rings[place][0]):
        x, top = corners.xy[rings[place][0]]
        above = np.flatnonzero((x_from <= x) & (x < x_to) & (y < top))
        place = int(ring_of[left[above[np.argmax(y[above])]]])
    return place


def _with_hole(ring: Ring, hole: Ring) -> Ring:
    """A ring that goes down to a hole, around it against the clock, and back."""
    top = int(np.lexsort([hole[:, 0], hole[:, 1]])[0])  # the left end of its uppermost edge
    x = hole[top, 0] + INSET_PX + 0.5
    begin = np.array([x, hole[top, 1]])
    from_x, to_x = ring[:, 0], np.roll(ring[:, 0], -1)
    flat = ring[:, 1] == np.roll(ring[:, 1], -1)
    above = flat & (np.minimum(from_x, to_x) <= x) & (x <= np.maximum(from_x, to_x)) & (ring[:, 1] < begin[1])
    edge = int(np.flatnonzero(above)[np.argmax(ring[above, 1])])
    end = np.array([[x, ring[edge, 1]]])
    around = [begin[None], np.roll(hole, -top, axis=0), begin[None]]
    return np.concatenate([ring[: edge + 1], end, *around, end, ring[edge + 1 :]])


def _spliced(whole: Ring, at: int, ring: Ring) -> Ring:
    return np.concatenate([whole[: at + 1], ring, ring[:1], whole[at:]])
