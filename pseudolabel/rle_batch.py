"""Many COCO strings measured at once: whether they are sound, how large the masks are and where.

What `pseudolabel.rle` says of one untrusted mask, said of a part's masks by array operations: a process that only
writes or counts masks needs no compiled loops, which take two seconds to load.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int64, UInt8

_LONGEST = 6  # characters of a count below 2**29


@dataclass(frozen=True, slots=True)
class Measured:
    """Of every mask; area and box mean nothing where it is not sound."""

    sound: Bool[np.ndarray, " n"]
    area: Int64[np.ndarray, " n"]
    bbox_xywh: Int64[np.ndarray, "n 4"]  # exact; zeros for an empty mask


@dataclass(frozen=True, slots=True)
class _Numbers:
    """Run lengths of all masks, one after the other."""

    value: Int64[np.ndarray, " r"]
    mask: Int64[np.ndarray, " r"]  # whose it is, rising
    place: Int64[np.ndarray, " r"]  # its place within the mask: the odd ones are foreground


def measured(texts: Sequence[str], sizes_hw: Sequence[tuple[int, int]]) -> Measured:
    """Soundness, area and extent of masks of images of these sizes, by their compressed counts.

    Sound are strings of COCO's 64 characters whose counts are none below 0 and sum to the image's pixels.
    """
    height, width = np.array(sizes_hw, dtype=np.int64).reshape(-1, 2).T
    lengths = np.array([len(text) for text in texts], dtype=np.int64)
    ascii_only = np.array([text.isascii() for text in texts], dtype=bool)
    # a question mark is 63, one of the 64: what is not ASCII is known by itself
    characters = np.frombuffer("".join(texts).encode("ascii", "replace"), dtype=np.uint8)
    sound, runs = _numbers(characters, lengths)
    sound &= ascii_only & _counted(runs, height * width)
    front = runs.place % 2 == 1
    area = np.bincount(runs.mask[front], runs.value[front], minlength=len(texts)).astype(np.int64)
    return Measured(sound, area, _extents(runs, sound, height))


def _numbers(
    characters: UInt8[np.ndarray, " c"], lengths: Int64[np.ndarray, " n"]
) -> tuple[Bool[np.ndarray, " n"], _Numbers]:
    """Which strings can be read, and the run lengths of these; the others have none."""
    mask = np.repeat(np.arange(len(lengths)), lengths)
    last = (characters - 48) & 32 == 0
    ends = np.cumsum(lengths)[lengths > 0] - 1
    readable = lengths > 0
    readable[mask[(characters < 48) | (characters > 111)]] = False
    readable[mask[ends[~last[ends]]]] = False  # they end within a number
    last[ends] = True
    start = np.flatnonzero(np.concatenate([[True], last[:-1]])) if len(characters) else np.zeros(0, dtype=np.int64)
    group = np.cumsum(last) - last  # the number that a character belongs to
    position = np.arange(len(characters)) - start[group]
    readable[mask[position >= _LONGEST]] = False
    shift = 5 * np.minimum(position, _LONGEST).astype(np.int64)
    value = _sums((characters.astype(np.int64) - 48 & 31) << shift, start)
    value -= np.where((characters[last] - 48) & 16, np.int64(32) << shift[last], 0)
    kept = readable[mask[start]]
    owner = mask[start][kept]
    place = np.arange(len(owner)) - np.searchsorted(owner, owner)
    return readable, _Numbers(_undone(value[kept], owner, place), owner, place)


def _sums(values: Int64[np.ndarray, " c"], start: Int64[np.ndarray, " r"]) -> Int64[np.ndarray, " r"]:
    sums: Int64[np.ndarray, " r"] = np.add.reduceat(values, start) if len(start) else np.zeros(0, dtype=np.int64)
    return sums


def _undone(
    value: Int64[np.ndarray, " r"], mask: Int64[np.ndarray, " r"], place: Int64[np.ndarray, " r"]
) -> Int64[np.ndarray, " r"]:
    """From the fourth on, a count is written as its difference to the one before the previous one."""
    chain = 3 * mask + np.where(place == 0, 0, 1 + place % 2)
    order = np.argsort(chain, kind="stable")
    chain, total = chain[order], np.cumsum(value[order])
    first = np.searchsorted(chain, chain)
    counts = np.empty_like(value)
    counts[order] = total - np.where(first > 0, total[first - 1], 0)
    return counts


def _counted(runs: _Numbers, area_px: Int64[np.ndarray, " n"]) -> Bool[np.ndarray, " n"]:
    """Whose counts are none below 0 and sum to the image's pixels."""
    total = np.zeros(len(area_px), dtype=np.int64)
    np.add.at(total, runs.mask, runs.value)
    good: Bool[np.ndarray, " n"] = total == area_px
    good &= np.bincount(runs.mask, minlength=len(area_px)) <= area_px + 1
    good[runs.mask[runs.value < 0]] = False
    return good


def _extents(
    runs: _Numbers, sound: Bool[np.ndarray, " n"], image_height: Int64[np.ndarray, " n"]
) -> Int64[np.ndarray, "n 4"]:
    """Left, top, width and height of the foreground of the sound masks."""
    total = np.cumsum(runs.value)
    first = np.searchsorted(runs.mask, runs.mask)
    end = total - np.where(first > 0, total[first - 1], 0)
    front = (runs.place % 2 == 1) & (runs.value > 0) & sound[runs.mask]
    mask, start, last = runs.mask[front], (end - runs.value)[front], end[front] - 1
    height = image_height[mask]
    left, right = start // height, last // height
    whole = left != right  # such a run goes over the end of a column
    top, bottom = np.where(whole, 0, start % height), np.where(whole, height - 1, last % height)
    boxes = np.zeros((len(sound), 4), dtype=np.int64)
    owners, begin = np.unique(mask, return_index=True)
    if len(owners):
        corner = [left[begin], np.minimum.reduceat(top, begin)]
        far = [np.maximum.reduceat(right, begin), np.maximum.reduceat(bottom, begin)]
        boxes[owners] = np.stack([*corner, far[0] - corner[0] + 1, far[1] - corner[1] + 1], axis=1)
    return boxes
