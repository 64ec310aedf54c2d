"""The loops of the RLE codec: runs from a crop and back, counts from a string and back.

Both directions go over a crop row by row, as it lies in memory, although runs go by columns. A pixel that differs from
the one above it starts or ends a run; a counting sort by column puts these few places in order. Painting is the
inverse: a mark where a run starts or ends, then each row is the exclusive or of its marks with the row above.

Inputs have been checked by `pseudolabel.rle`; only `parse_counts` takes anything. Counts and places are int64 (n,),
pixels and strings uint8. Compiled functions are `no_type_check`, since a runtime checker would wrap what numba is to
compile.
"""

from typing import no_type_check

import numba
import numpy as np
from jaxtyping import Bool, UInt8

_WORD = 8  # pixels that are compared at once


def framed(pixels: Bool[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h2 w8"]:
    """The crop with a row of background above and below, its rows padded to whole words of eight pixels."""
    height, width = pixels.shape
    frame = np.zeros((height + 2, -(-width // _WORD) * _WORD), dtype=np.uint8)
    frame[1:-1, :width] = pixels
    return frame


@numba.njit(cache=True)
@no_type_check
def _changed_words(words, per_row):
    """Indices of the words that differ from the one above."""
    count = 0
    for index in range(per_row, words.size):
        count += words[index] != words[index - per_row]
    changed = np.empty(count + 1, dtype=np.int64)  # one spare, for a write without a branch
    used = 0
    for index in range(per_row, words.size):
        changed[used] = index
        used += words[index] != words[index - per_row]
    return changed[:count]


@numba.njit(cache=True)
@no_type_check
def _places(flat, changed, width, image_height):
    """Column-major positions, relative to the crop's corner, of the pixels that differ from the one above, rising.

    A counting sort by column, since rows rise already.
    """
    slots = np.zeros(width + 1, dtype=np.int64)
    for index in changed:
        first = 8 * index
        column = first % width + 1
        for step in range(8):
            slots[column + step] += flat[first + step] ^ flat[first + step - width]
    for column in range(width):
        slots[column + 1] += slots[column]
    places = np.empty(slots[width], dtype=np.int64)
    for index in changed:
        first = 8 * index
        row = first // width - 1
        for column in range(first % width, first % width + 8):
            pixel = first + column - first % width
            if flat[pixel] != flat[pixel - width]:
                places[slots[column]] = column * np.int64(image_height) + row
                slots[column] += 1
    return places


@numba.njit(cache=True)
@no_type_check
def _runs_between(places, area_px):
    """Run lengths from rising places of change; two at one place (a column's end, the next one's start) cancel."""
    counts = np.empty(places.size + 1, dtype=np.int64)
    used = 0
    last = np.int64(0)
    index = 0
    while index < places.size and places[index] < area_px:
        if index + 1 < places.size and places[index] == places[index + 1]:
            index += 2
            continue
        counts[used] = places[index] - last
        last = places[index]
        used += 1
        index += 1
    counts[used] = area_px - last
    return counts[: used + 1]


@numba.njit(cache=True)
@no_type_check
def frame_counts(frame, x0, y0, image_height, image_width):
    """Run lengths over the whole image of the 0/1 mask that `framed` has made of a crop at (x0, y0)."""
    width = frame.shape[1]
    flat = frame.ravel()
    places = _places(flat, _changed_words(flat.view(np.uint64), width // 8), width, image_height)
    places += x0 * np.int64(image_height) + y0
    return _runs_between(places, image_height * np.int64(image_width))


@numba.njit(cache=True)
@no_type_check
def format_counts(counts):
    """COCO's string of run lengths below 2**29."""
    text = np.empty(counts.size * 6, dtype=np.uint8)
    used = 0
    for index in range(counts.size):
        value = counts[index] - counts[index - 2] if index > 2 else counts[index]
        more = True
        while more:
            group = value & 0x1F
            value >>= 5
            more = value != -1 if group & 0x10 else value != 0
            text[used] = group + 48 + (0x20 if more else 0)
            used += 1
    return text[:used]


@numba.njit(cache=True)
@no_type_check
def parse_counts(text, area_px):
    """Run lengths of an untrusted string, and 0, or the number of the first problem found.

    1: a character outside COCO's 64; 2: the string ends within a number; 3: a count below 0 or above `area_px`;
    4: more than `area_px` + 1 counts; 5: the counts do not sum to `area_px`.
    """
    counts = np.empty(text.size, dtype=np.int64)
    used = 0
    total = np.int64(0)
    value = np.int64(0)
    shift = 0
    for index in range(text.size):
        if text[index] < 48 or text[index] > 111:
            return counts[:used], 1
        if shift > 35:
            return counts[:used], 3
        group = np.int64(text[index]) - 48
        value |= (group & 0x1F) << shift
        shift += 5
        if group & 0x20:
            continue
        if group & 0x10:
            value |= np.int64(-1) << shift
        if used > 2:
            value += counts[used - 2]
        if value < 0 or value > area_px:
            return counts[:used], 3
        counts[used] = value
        total += value
        used += 1
        value, shift = np.int64(0), 0
    if shift != 0:
        return counts[:used], 2
    if used > area_px + 1:
        return counts[:used], 4
    return counts[:used], 0 if total == area_px else 5


@numba.njit(cache=True)
@no_type_check
def extent_of(counts, image_height):
    """Left, top, right and bottom of the foreground, ends exclusive; zeros if there is none."""
    left, top, right, bottom = -1, image_height, 0, 0
    position = np.int64(0)
    for index in range(counts.size):
        start, position = position, position + counts[index]
        if index % 2 == 0 or counts[index] == 0:
            continue
        first, last = start // image_height, (position - 1) // image_height
        left = first if left < 0 else left
        right = last + 1
        if first == last:
            top, bottom = min(top, start % image_height), max(bottom, (position - 1) % image_height + 1)
        else:
            top, bottom = 0, image_height
    return (left, top, right, bottom) if left >= 0 else (0, 0, 0, 0)


@numba.njit(cache=True)
@no_type_check
def paint(counts, image_height, x0, y0, pixels):
    """Sets the foreground in `pixels`, a crop of zeros at (x0, y0) that holds the mask's extent."""
    height = pixels.shape[0]
    position = np.int64(0)
    for index in range(counts.size):
        start, position = position, position + counts[index]
        if index % 2 == 0 or counts[index] == 0:
            continue
        for column in range(start // image_height, (position - 1) // image_height + 1):
            first = max(start - column * image_height, 0) - y0
            end = min(position - column * image_height, image_height) - y0
            pixels[first, column - x0] ^= 1
            if end < height:
                pixels[end, column - x0] ^= 1
    for row in range(1, height):
        for column in range(pixels.shape[1]):
            pixels[row, column] ^= pixels[row - 1, column]
