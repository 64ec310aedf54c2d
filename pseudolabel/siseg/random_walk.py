"""The random walk that spreads instance scores up to their boundaries, without the dense matrix.

Affinities A are nonzero inside a small radius alone: a stencil of 69 points at radius 5. Every cell becomes the mean of
its neighbours weighted by affinity, x <- P x with P = D^-1 A, and that `steps` times. P has its spectrum in [-1, 1], on
which t^steps is a short sum of Chebyshev polynomials: t^256 needs degree 68 for an error of 1.5e-5.
"""

from math import comb

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64
from numba import njit
from torch import Tensor

from pseudolabel.siseg.pairs import pair_offsets, path_maximum

RADIUS = 5
EXPONENT = 10.0
STEPS = 256
TOLERANCE = 2e-5  # on the spectrum; rounding and uneven degrees of cells leave the maps within 1e-4


def chebyshev_power(steps: int, *, tolerance: float = TOLERANCE) -> list[float]:
    """Coefficients c_k with |t^steps - sum c_k T_k(t)| <= `tolerance` everywhere on [-1, 1].

    In closed form c_k = 2^(1 - steps) binomial(steps, (steps - k) / 2) for k of the parity of `steps`, c_0 the half.
    They are positive and sum to one, so that what is left out bounds the error before anything is computed.
    """
    coefficients: list[float] = []
    missing = 1.0
    while missing > tolerance and len(coefficients) <= steps:
        order = len(coefficients)
        doubled = 1 if order == 0 else 2
        even = (steps - order) % 2 == 0
        coefficients.append(doubled * comb(steps, (steps - order) // 2) / 2**steps if even else 0.0)
        missing -= coefficients[-1]
    return coefficients


def transition_planes(
    boundary: Float[Tensor, "b h w"], *, radius: int = RADIUS, exponent: float = EXPONENT
) -> Float[Tensor, "b planes h w"]:
    """P by offset: plane 0 the cell itself, then each pair offset o, then each -o; every cell's planes sum to one.

    The affinity of two cells is (1 - highest boundary on the path between them) ^ exponent; outside the map the
    boundary is 1, so nothing is exchanged with the outside.
    """
    reach = radius - 1
    padded = torch.nn.functional.pad(boundary, (2 * reach, 2 * reach, reach, 2 * reach), value=1.0)
    forward = [(1 - path_maximum(padded, offset, radius)).pow(exponent) for offset in pair_offsets(radius)]
    height, width = boundary.shape[-2:]
    here = [plane[:, reach : reach + height, reach : reach + width] for plane in forward]
    back = [
        plane[:, reach - y : reach - y + height, reach - x : reach - x + width]
        for plane, (y, x) in zip(forward, pair_offsets(radius), strict=True)
    ]
    planes = torch.stack([torch.ones_like(boundary), *here, *back], dim=1)
    return planes / planes.sum(dim=1, keepdim=True)


def walk(
    scores: Float32[np.ndarray, "k h w"],
    boundary: Float32[np.ndarray, "h w"],
    *,
    steps: int = STEPS,
    radius: int = RADIUS,
    exponent: float = EXPONENT,
) -> Float32[np.ndarray, "k h w"]:
    """Score maps after `steps` steps of the walk over one image, on the CPU.

    Source: Ahn et al., IRNet; SISeg's "semantic-aware propagation": out = (P^steps) ((1 - B) o scores).
    """
    reach = radius - 1
    planes = transition_planes(torch.from_numpy(np.ascontiguousarray(boundary))[None], radius=radius, exponent=exponent)
    weights, offsets = _in_threes(planes[0].numpy(), np.array(_all_offsets(radius), dtype=np.int64))
    start = np.pad((scores * (1 - boundary)).astype(np.float32), ((0, 0), (reach, reach), (reach, reach)))
    coefficients = np.array(chebyshev_power(steps), dtype=np.float32)
    padded: Float32[np.ndarray, "k rows columns"] = _walk_rows(start, weights, offsets, coefficients, reach)
    height, width = boundary.shape
    return padded[:, reach : reach + height, reach : reach + width]


def _in_threes(
    planes: Float32[np.ndarray, "planes h w"], offsets: Int64[np.ndarray, "planes 2"]
) -> tuple[Float32[np.ndarray, "threes h w"], Int64[np.ndarray, "threes 2"]]:
    """The planes with as many empty ones behind them as make their number a multiple of three."""
    missing = -len(offsets) % 3
    return np.pad(planes, ((0, missing), (0, 0), (0, 0))), np.pad(offsets, ((0, missing), (0, 0)))


def walk_batch(
    scores: Float[Tensor, "b k h w"],
    boundary: Float[Tensor, "b h w"],
    *,
    steps: int = STEPS,
    radius: int = RADIUS,
    exponent: float = EXPONENT,
) -> Float[Tensor, "b k h w"]:
    """The same for a batch on any device; nothing returns to the host before the end."""
    planes = transition_planes(boundary, radius=radius, exponent=exponent)
    now = scores * (1 - boundary).unsqueeze(1)
    coefficients = chebyshev_power(steps)
    result = now * coefficients[0]
    before, now = now, _apply_planes(planes, now, radius)
    for index, coefficient in enumerate(coefficients[1:], start=1):
        if coefficient:
            result.add_(now, alpha=coefficient)
        if index + 1 < len(coefficients):
            before, now = now, _apply_planes(planes, now, radius).mul_(2).sub_(before)
    return result


def _all_offsets(radius: int) -> list[tuple[int, int]]:
    ahead = list(pair_offsets(radius))
    return [(0, 0), *ahead, *[(-y, -x) for y, x in ahead]]


def _apply_planes(planes: Tensor, x: Tensor, radius: int) -> Tensor:
    reach = radius - 1
    height, width = x.shape[-2:]
    padded = torch.nn.functional.pad(x, (reach, reach, reach, reach))
    result = torch.zeros_like(x)
    for index, (down, across) in enumerate(_all_offsets(radius)):
        top, left = reach + down, reach + across
        shifted = padded[..., top : top + height, left : left + width]
        result.addcmul_(shifted, planes[:, index].unsqueeze(1))
    return result


@njit(cache=True, nogil=True, fastmath=True)
def _apply_rows(x, planes, offsets, result, reach):  # type: ignore[no-untyped-def]
    """The inside of result = P x, maps (k, h + 2 reach, w + 2 reach) with a margin of zeros.

    A row's planes stay in the cache while all maps pass over it; three planes at a time save two thirds of the
    target's traffic.
    """
    height, width = planes.shape[1], planes.shape[2]
    for row in range(height):
        for index in range(x.shape[0]):
            target = result[index, row + reach, reach : reach + width]
            target[:] = 0
            for plane in range(0, len(offsets), 3):
                top0, left0 = row + reach + offsets[plane, 0], reach + offsets[plane, 1]
                top1, left1 = row + reach + offsets[plane + 1, 0], reach + offsets[plane + 1, 1]
                top2, left2 = row + reach + offsets[plane + 2, 0], reach + offsets[plane + 2, 1]
                weight0, values0 = planes[plane, row], x[index, top0, left0 : left0 + width]
                weight1, values1 = planes[plane + 1, row], x[index, top1, left1 : left1 + width]
                weight2, values2 = planes[plane + 2, row], x[index, top2, left2 : left2 + width]
                for column in range(width):
                    target[column] += (
                        weight0[column] * values0[column]
                        + weight1[column] * values1[column]
                        + weight2[column] * values2[column]
                    )


@njit(cache=True, nogil=True, fastmath=True)
def _recur(after, before, result, coefficient):  # type: ignore[no-untyped-def]
    """after <- 2 after - before, and its share goes to the result."""
    flat_after, flat_before, flat_result = after.ravel(), before.ravel(), result.ravel()
    for index in range(flat_after.size):
        flat_after[index] = 2 * flat_after[index] - flat_before[index]
        flat_result[index] += coefficient * flat_after[index]


@njit(cache=True, nogil=True, fastmath=True)
def _walk_rows(start, planes, offsets, coefficients, reach):  # type: ignore[no-untyped-def]
    """The Chebyshev sum by its recurrence T_{k+1} = 2 P T_k - T_{k-1}."""
    before = start
    result = coefficients[0] * start
    now = np.zeros_like(start)
    after = np.zeros_like(start)
    _apply_rows(before, planes, offsets, now, reach)
    result += coefficients[1] * now
    for order in range(2, len(coefficients)):
        _apply_rows(now, planes, offsets, after, reach)
        _recur(after, before, result, coefficients[order])
        before, now, after = now, after, before
    return result
