"""Many COCO strings measured at once: whether they are sound, how large the masks are and where.

What `pseudolabel.rle` says of one untrusted mask, said of a part's masks by array operations: a process that only
writes or counts masks needs no compiled loops, which take two seconds to load.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Int64, UInt8

from pseudolabel.errors import RejectError

if TYPE_CHECKING:
    from pseudolabel.rle import Rle

_LONGEST = 6  # characters of a count below 2**29


@dataclass(frozen=True, slots=True)
class Measured:
    """Of every mask; area and box mean nothing where it is not sound."""

    sound: Bool[np.ndarray, " n"]
    area: Int64[np.ndarray, " n"]
    bbox_xywh: Int64[np.ndarray, "n 4"]  # exact; zeros for an empty mask


@dataclass(frozen=True, slots=True)
class _Runs:
    """Run lengths of all masks, one after the other."""

    value: Int64[np.ndarray, " r"]
    count: Int64[np.ndarray, " n"]  # how many each mask has
    first: Int64[np.ndarray, " r"]  # where the first one of the run's mask stands
    front: Bool[np.ndarray, " r"]  # whether it is foreground: the second of a mask, the fourth and so on


def measured(texts: Sequence[str], sizes_hw: Sequence[tuple[int, int]]) -> Measured:
    """Soundness, area and extent of masks of images of these sizes, by their compressed counts.

    Sound are strings of COCO's 64 characters whose counts are none below 0 and sum to the image's pixels.
    """
    height, width = np.array(sizes_hw, dtype=np.int64).reshape(-1, 2).T
    plain = np.array([text.isascii() for text in texts], dtype=bool)
    lengths = np.array([len(text) for text in texts], dtype=np.int64)
    characters = np.frombuffer("".join(texts).encode("ascii", "replace"), dtype=np.uint8)
    readable, runs = _read(characters, lengths)
    owner = np.repeat(np.arange(len(texts)), runs.count)
    total = np.bincount(owner, runs.value, minlength=len(texts))
    sound = readable & plain & (total == height * width) & (runs.count <= height * width + 1)
    sound[owner[runs.value < 0]] = False
    area = np.bincount(owner[runs.front], runs.value[runs.front], minlength=len(texts)).astype(np.int64)
    return Measured(sound, area, _extents(runs, owner, sound, height))


def measured_one(mask: "Rle") -> tuple[int, tuple[int, int, int, int]]:
    """The area of a mask in pixels and its exact extent, left, top, width and height.

    Raises:
        RejectError: `bad_segmentation`.
    """
    found = measured([mask["counts"]], [(mask["size"][0], mask["size"][1])])
    if not found.sound[0]:
        raise RejectError("bad_segmentation", "counts are damaged, or of an image of another size")
    x, y, width, height = found.bbox_xywh[0].tolist()
    return int(found.area[0]), (x, y, width, height)


def sample(mask: "Rle", rows: Int64[np.ndarray, " h"], columns: Int64[np.ndarray, " w"]) -> Bool[np.ndarray, "h w"]:
    """The mask at some rows and columns of the image alone; takes memory by these, not by the image.

    Args:
        mask: a sound one; see `measured_one`.
        rows: all of them on the image, as `columns`.
    """
    characters = np.frombuffer(mask["counts"].encode("ascii"), dtype=np.uint8)
    runs = _read(characters, np.array([len(characters)]))[1].value
    places = columns[:, None] * mask["size"][0] + rows[None, :]  # counts run down the columns
    inside: Bool[np.ndarray, "w h"] = np.searchsorted(runs.cumsum(), places, side="right") % 2 == 1
    return inside.T


def _read(
    characters: UInt8[np.ndarray, " c"], lengths: Int64[np.ndarray, " n"]
) -> tuple[Bool[np.ndarray, " n"], _Runs]:
    """Which strings can be read, and the run lengths of all; those of strings that cannot be read mean nothing."""
    bits = characters - np.uint8(48)
    last = (bits & 32) == 0  # of a number
    filled = lengths > 0
    readable, ends = filled.copy(), np.cumsum(lengths) - 1
    readable[filled] = last[ends[filled]]  # else it ends within a number
    last[ends[filled]] = True
    end = np.flatnonzero(last)
    start = np.concatenate([np.zeros(1, dtype=np.int64), end[:-1] + 1])[: len(end)]
    long = end - start >= _LONGEST
    wrong = np.concatenate([np.flatnonzero(bits > 63), start[long]])
    readable[np.searchsorted(ends, wrong)] = False
    value = (bits[start] & np.uint8(31)).astype(np.int64)
    for step in range(1, min(_LONGEST, int((end - start).max(initial=0)) + 1)):
        longer = np.flatnonzero(end - start >= step)
        value[longer] |= (bits[start[longer] + step] & np.uint8(31)).astype(np.int64) << (5 * step)
    negative = np.flatnonzero(bits[end] & 16)
    value[negative] -= np.int64(32) << (5 * np.minimum(end[negative] - start[negative], _LONGEST))
    count = np.diff(np.searchsorted(end, ends, side="right"), prepend=0)
    first = np.repeat(np.cumsum(count) - count, count)
    place = np.arange(len(value)) - first
    return readable, _Runs(_undone(value, place, first), count, first, place % 2 == 1)


def _undone(
    value: Int64[np.ndarray, " r"], place: Int64[np.ndarray, " r"], first: Int64[np.ndarray, " r"]
) -> Int64[np.ndarray, " r"]:
    """From the fourth on, a count is written as its difference to the one before the previous one."""
    odd = place % 2 == 1
    counts = value.copy()
    for chain in (odd, ~odd & (place > 0)):
        total = np.cumsum(np.where(chain, value, 0))
        counts[chain] = (total - total[first])[chain]
    return counts


def _extents(
    runs: _Runs, owner: Int64[np.ndarray, " r"], sound: Bool[np.ndarray, " n"], image_height: Int64[np.ndarray, " n"]
) -> Int64[np.ndarray, "n 4"]:
    """Left, top, width and height of the foreground of the sound masks."""
    total = np.cumsum(runs.value)
    shown = runs.front & (runs.value > 0) & sound[owner]
    begin = (total - total[runs.first] + runs.value[runs.first] - runs.value)[shown]
    mask, last = owner[shown], begin + runs.value[shown] - 1
    height = image_height[mask]
    left, right = begin // height, last // height
    whole = left != right  # such a run goes over the end of a column
    top, bottom = np.where(whole, 0, begin - left * height), np.where(whole, height - 1, last - right * height)
    boxes = np.zeros((len(sound), 4), dtype=np.int64)
    start = np.flatnonzero(np.diff(mask, prepend=-1))
    if len(start):
        corner = [left[start], np.minimum.reduceat(top, start)]
        far = [np.maximum.reduceat(right, start), np.maximum.reduceat(bottom, start)]
        boxes[mask[start]] = np.stack([*corner, far[0] - corner[0] + 1, far[1] - corner[1] + 1], axis=1)
    return boxes
