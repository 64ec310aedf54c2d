"""The dynamic mask head on a CPU without gradients: all three layers of one instance over a tile of cells at a time.

The activations of a tile stay in a core's caches, and eight rows are added up in registers. A matrix library packs its
operands first, which costs more than to multiply matrices of eight by eight.
"""

import numba
import numpy as np
from jaxtyping import Float32

TILE = 512  # cells; their features and activations fill 48 KiB
_LOWEST = np.float32(-np.inf)
_FAST = {"contract", "nsz"}  # NaN and infinities stay what they are


def head_masks(
    extended: Float32[np.ndarray, "m3 hw"],
    affine: Float32[np.ndarray, "n c m3"],
    second: Float32[np.ndarray, "n c c"],
    bias: Float32[np.ndarray, "n c"],
    third: Float32[np.ndarray, "n c"],
    last_bias: Float32[np.ndarray, " n"],
) -> Float32[np.ndarray, "n hw"]:
    """Mask logits of the instances of one image.

    Args:
        extended: features, then x, y and 1 of every cell.
        affine: the first layer, of all of them.
    """
    masks = np.empty((len(affine), extended.shape[1]), dtype=np.float32)
    _head(extended, affine, second, bias, third, last_bias, masks)
    return masks


@numba.njit(cache=True, nogil=True, fastmath=_FAST)
def _head(extended, affine, second, bias, third, last_bias, masks):  # type: ignore[no-untyped-def]  # numba infers them
    channels, features = affine.shape[1], affine.shape[2] - 3
    one = np.empty((channels, TILE), dtype=np.float32)
    two = np.empty_like(one)
    zero = np.float32(0)
    for first in range(0, extended.shape[1], TILE):
        size = min(TILE, extended.shape[1] - first)
        x, y = extended[features, first : first + size], extended[features + 1, first : first + size]
        for index in range(len(affine)):
            for channel in range(channels):
                target, weights = one[channel, :size], affine[index, channel]
                for_x, for_y, constant = weights[features], weights[features + 1], weights[features + 2]
                for cell in range(size):
                    target[cell] = for_x * x[cell] + for_y * y[cell] + constant
                _add(target, zero, True, weights[:features], extended, first, zero)
            for channel in range(channels):
                target = two[channel, :size]
                _add(target, bias[index, channel], False, second[index, channel], one, 0, zero)
            target = masks[index, first : first + size]
            _add(target, last_bias[index], False, third[index], two, 0, _LOWEST)


@numba.njit(cache=True, nogil=True, fastmath=_FAST)
def _add(target, constant, begun, weights, rows, first, floor):  # type: ignore[no-untyped-def]  # numba infers them
    """target <- max(start + weights @ rows from column `first` on, floor), eight rows in one pass over the target.

    `start` is the target itself where something is `begun` in it, else the constant.
    """
    count = len(weights)
    for k in range(0, count - 7, 8):
        least = floor if k + 8 == count else _LOWEST
        w0, w1, w2, w3 = weights[k], weights[k + 1], weights[k + 2], weights[k + 3]
        w4, w5, w6, w7 = weights[k + 4], weights[k + 5], weights[k + 6], weights[k + 7]
        r0, r1, r2, r3 = rows[k, first:], rows[k + 1, first:], rows[k + 2, first:], rows[k + 3, first:]
        r4, r5, r6, r7 = rows[k + 4, first:], rows[k + 5, first:], rows[k + 6, first:], rows[k + 7, first:]
        for i in range(target.size):
            value = (target[i] if begun or k else constant) + w0 * r0[i] + w1 * r1[i] + w2 * r2[i] + w3 * r3[i]
            value = value + (w4 * r4[i] + w5 * r5[i] + w6 * r6[i] + w7 * r7[i])
            target[i] = least if value < least else value
    for k in range(count - count % 8, count):
        least = floor if k + 1 == count else _LOWEST
        weight, row = weights[k], rows[k, first:]
        for i in range(target.size):
            value = (target[i] if begun or k else constant) + weight * row[i]
            target[i] = least if value < least else value
