"""One owner per pixel, among the objects of a class or among all; and what one class yields to another.

Two things of one class are rarely annotated on the same pixels, whereas a tie is part of the person, too. Of two
objects i and j that claim a pixel, i beats j there by the margin

    log-odds of i - log-odds of j + STAKE (n / area i - n / area j) + UPRIGHT tanh((top i - top j) / s)

with n the pixels that both claim and s the root of the smaller one's area. So an object that lies within another one,
and would have nothing left, gets its pixels, and in photographs, with the ground below, the object that begins lower
in the image is taken to stand in front. A pixel goes to whoever's smallest margin is the largest, and how sure an
object may still be of it is its own probability times that of winning, the logistic function of that margin.

Between two classes a pixel may have two owners, but where a segmenter knows both, its probabilities say which of them
is seen there. The object for which the sources' mean probability is lower by more than a margin yields the pixel; what
is left of its own probability there is that times its share of the odds, again the logistic function of the difference
in log-odds.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32

from pseudolabel.masks import Grid

STAKE, UPRIGHT = (
    4.0,
    1.0,
)  # chosen on drawn scenes, nuclei and photographs, where half or twice as much do about as well
_SURE = 0.01  # log-odds are taken of probabilities that are at least this far from 0 and 1


@dataclass(frozen=True, slots=True)
class Claim:
    """The pixels that an object wants, and how sure it is of each."""

    window: Grid
    pixels: Bool[np.ndarray, "h w"]
    probability: Float32[np.ndarray, "h w"]


@dataclass(frozen=True, slots=True)
class Share:
    """What an object gets of its claim, and how sure it may be of each pixel after its rivals were heard."""

    pixels: Bool[np.ndarray, "h w"]
    probability: Float32[np.ndarray, "h w"]


@dataclass(frozen=True, slots=True)
class _Pair:
    """Two objects that dispute something, the smaller first, and where the common rectangle lies in their windows."""

    first: int
    second: int
    at_first: tuple[slice, slice]
    at_second: tuple[slice, slice]

    def pixels(self, claims: Sequence[Claim]) -> Bool[np.ndarray, "h w"]:
        """What both claim of the common rectangle."""
        both: Bool[np.ndarray, "h w"] = (
            claims[self.first].pixels[self.at_first] & claims[self.second].pixels[self.at_second]
        )
        return both


def shared_out(claims: Sequence[Claim], *, upright: bool) -> list[Share | None]:
    """Every disputed pixel to one of its claimants; None for an object that nobody disputes anything with.

    Args:
        upright: the images show the ground below, so that what begins lower stands in front.
    """
    areas = [int(claim.pixels.sum()) for claim in claims]
    pairs = list(_pairs(claims, areas))
    least: dict[int, Float32[np.ndarray, "h w"]] = {}
    for pair in pairs:
        disputed = pair.pixels(claims)
        margin = _margin(claims, pair, areas, int(disputed.sum()), upright=upright)
        for index, view, own_margin in ((pair.first, pair.at_first, margin), (pair.second, pair.at_second, -margin)):
            own = least.setdefault(index, np.full(claims[index].pixels.shape, np.inf, dtype=np.float32))[view]
            np.minimum(own, own_margin, out=own, where=disputed)
    left = {index: claims[index].pixels.copy() for index in least}
    for pair in pairs:
        disputed, beaten = pair.pixels(claims), least[pair.first][pair.at_first] < least[pair.second][pair.at_second]
        left[pair.first][pair.at_first] &= ~(disputed & beaten)
        left[pair.second][pair.at_second] &= ~(disputed & ~beaten)
    return [_share(claim, left[i], least[i]) if i in left else None for i, claim in enumerate(claims)]


def yielded(claims: Sequence[Claim], classes: Sequence[int], *, margin: float) -> list[Share | None]:
    """What objects of different classes yield to each other; None for one that keeps all.

    An object that would have nothing left keeps all: it is not seen by the segmenter, but somebody drew its box. The
    shares' probabilities are of winning alone, 1 where nothing was yielded.

    Args:
        claims: what they have, with the probabilities that sources give who know the classes.
        classes: of the objects.
        margin: by which the probability of the one has to be lower.
    """
    left: dict[int, Share] = {}
    for pair in _pairs(claims, [int(claim.pixels.sum()) for claim in claims]):
        first, second = claims[pair.first], claims[pair.second]
        if classes[pair.first] == classes[pair.second]:
            continue
        disputed, one, other = pair.pixels(claims), first.probability[pair.at_first], second.probability[pair.at_second]
        odds = _log_odds(one) - _log_odds(other)
        for index, view, lost, won in (
            (pair.first, pair.at_first, disputed & (other - one > margin), odds),
            (pair.second, pair.at_second, disputed & (one - other > margin), -odds),
        ):
            if lost.any():
                share = left.setdefault(index, _whole(claims[index]))
                share.pixels[view] &= ~lost
                share.probability[view][lost] *= (1 / (1 + np.exp(-won)))[lost]
    return [left[i] if i in left and left[i].pixels.any() else None for i in range(len(claims))]


def _whole(claim: Claim) -> Share:
    return Share(claim.pixels.copy(), np.ones(claim.pixels.shape, dtype=np.float32))


def _share(claim: Claim, pixels: Bool[np.ndarray, "h w"], margin: Float32[np.ndarray, "h w"]) -> Share:
    """Where nobody else claims a pixel the margin is infinite."""
    return Share(pixels, claim.probability / (1 + np.exp(-margin)))


def _pairs(claims: Sequence[Claim], areas: Sequence[int]) -> Iterator[_Pair]:
    order = sorted(range(len(claims)), key=lambda i: areas[i])
    extents = np.array([claims[i].window.extent_xyxy for i in order]).reshape(-1, 4).round().astype(int)
    for place, first in enumerate(order):
        later = extents[place + 1 :]
        low, high = np.maximum(extents[place, :2], later[:, :2]), np.minimum(extents[place, 2:], later[:, 2:])
        for other in np.flatnonzero((low < high).all(axis=1)):
            second = order[place + 1 + int(other)]
            views = [_view(claims[i].window, low[other], high[other]) for i in (first, second)]
            pair = _Pair(first, second, *views)
            if pair.pixels(claims).any():
                yield pair


def _margin(
    claims: Sequence[Claim], pair: _Pair, areas: Sequence[int], count: int, *, upright: bool
) -> Float32[np.ndarray, "h w"]:
    """By how much the first of a pair, which dispute `count` pixels, beats the second, over their common rectangle."""
    first, second = claims[pair.first], claims[pair.second]
    sure = _log_odds(first.probability[pair.at_first]) - _log_odds(second.probability[pair.at_second])
    stake = count * (1 / areas[pair.first] - 1 / areas[pair.second])
    lower = (first.window.y0 - second.window.y0) / np.sqrt(areas[pair.first])
    in_front = UPRIGHT * np.tanh(lower) if upright else 0.0
    margin: Float32[np.ndarray, "h w"] = (sure + STAKE * stake + in_front).astype(np.float32)
    return margin


def _view(window: Grid, low: np.ndarray, high: np.ndarray) -> tuple[slice, slice]:
    """A rectangle of the image in the cells of a window."""
    x0, y0 = int(window.x0), int(window.y0)
    return slice(int(low[1]) - y0, int(high[1]) - y0), slice(int(low[0]) - x0, int(high[0]) - x0)


def _log_odds(probability: Float32[np.ndarray, "h w"]) -> Float32[np.ndarray, "h w"]:
    sure = np.clip(probability, _SURE, 1 - _SURE)
    result: Float32[np.ndarray, "h w"] = np.log(sure / (1 - sure))
    return result
