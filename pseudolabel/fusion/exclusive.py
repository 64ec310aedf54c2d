"""One owner per pixel, for consumers that cannot take overlapping masks."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32

from pseudolabel.masks import Grid


@dataclass(frozen=True, slots=True)
class Claim:
    """The pixels that an object wants, and how sure it is of each."""

    window: Grid
    pixels: Bool[np.ndarray, "h w"]
    probability: Float32[np.ndarray, "h w"]


def exclusive_pixels(claims: Sequence[Claim], size_hw: tuple[int, int]) -> list[Bool[np.ndarray, "h w"]]:
    """What is left to each object when every pixel goes to the surest one, of equally sure ones to the smaller.

    Takes two numbers per pixel of the image, whatever the number of objects.
    """
    surest = np.zeros(size_hw, dtype=np.float32)
    owner = np.full(size_hw, -1, dtype=np.int32)
    for i in sorted(range(len(claims)), key=lambda i: int(claims[i].pixels.sum())):
        claim, view = claims[i], _view(claims[i].window)
        wins = claim.pixels & ((claim.probability > surest[view]) | (owner[view] < 0))
        owner[view][wins] = i
        surest[view][wins] = claim.probability[wins]
    return [claim.pixels & (owner[_view(claim.window)] == i) for i, claim in enumerate(claims)]


def _view(window: Grid) -> tuple[slice, slice]:
    y0, x0 = int(window.y0), int(window.x0)
    return slice(y0, y0 + window.height), slice(x0, x0 + window.width)
