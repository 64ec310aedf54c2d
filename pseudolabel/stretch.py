"""Pixels of more than eight bits as the eight that segmenters were trained on."""

import numpy as np
from jaxtyping import Shaped, UInt8

from pseudolabel.errors import RejectError
from pseudolabel.pixel_rule import Stretch

_LOW, _HIGH = 0.1, 99.9  # per cent of the pixels that may be black and white
_SAMPLED = 1 << 20
_STRIP_PIXELS = 1 << 22
_DIM_WHITE = 64  # below it, the high bytes of 16-bit colours hold less than six bits


def eight_bits(
    values: Shaped[np.ndarray, "h w *c"], stretch: Stretch, *, jointly: bool = False
) -> UInt8[np.ndarray, "h w *c"]:
    """Pixels as bytes.

    `none` scales by the white of the type, which 32-bit and floating-point pixels do not have. `percentile` puts the
    darkest and brightest 0.1 per cent of an image's pixels at black and white; not finite ones are black. `auto` does
    so for pixels of more than eight bits: what a 12-bit camera or a dim stain writes fills a sixteenth of the range.

    Args:
        values: gray, or channels last.
        stretch: the rule.
        jointly: one black and one white for all channels, which keeps colours; else each channel has its own.

    Raises:
        RejectError: `unsupported_format`, pixels without a white that are not to be stretched.
    """
    if values.dtype == np.uint8 and stretch != "percentile":
        return values
    if values.dtype == np.bool_:
        return values.astype(np.uint8) * 255
    if stretch == "none":
        return _by_white(values)
    if values.ndim == 2 or jointly:
        return _between(values, *_black_and_white(values))
    channels = [_between(plane, *_black_and_white(plane)) for plane in np.moveaxis(values, -1, 0)]
    return np.stack(channels, axis=-1)


def check_high_bytes(pixels: UInt8[np.ndarray, "h w 3"], stretch: Stretch, cure: str) -> None:
    """Raises RejectError `unsupported_format` where 16-bit colours, read by their high bytes, lost what they show."""
    brightest = int(pixels.max(initial=0))
    if stretch != "none" and brightest < _DIM_WHITE:
        raise RejectError(
            "unsupported_format",
            f"16-bit colours so dim that their high bytes end at {brightest} of 255; {cure}, or say --stretch none",
        )


def _by_white(values: Shaped[np.ndarray, "h w *c"]) -> UInt8[np.ndarray, "h w *c"]:
    if values.dtype != np.uint16:
        raise RejectError(
            "unsupported_format", f"pixels of type {values.dtype} have no defined white; say  --stretch percentile"
        )
    scaled = np.empty(values.shape, dtype=np.uint8)
    rows = max(1, _STRIP_PIXELS // max(1, values[0].size))
    for top in range(0, len(values), rows):
        scaled[top : top + rows] = (values[top : top + rows].astype(np.uint32) * 255 + 32767) // 65535
    return scaled


def _black_and_white(values: Shaped[np.ndarray, "h w *c"]) -> tuple[float, float]:
    flat = values.reshape(-1)
    sample = flat[:: max(1, flat.size // _SAMPLED)].astype(np.float64)
    finite = sample[np.isfinite(sample)]
    if not finite.size:
        raise RejectError("undecodable", "not one finite pixel")
    low, high = np.percentile(finite, (_LOW, _HIGH))
    if high <= low:  # the few pixels that differ are all there is to see
        low, high = float(finite.min()), float(finite.max())
    return float(low), float(high)


def _between(values: Shaped[np.ndarray, "h w *c"], low: float, high: float) -> UInt8[np.ndarray, "h w *c"]:
    scaled = np.empty(values.shape, dtype=np.uint8)
    factor = 255.0 / (high - low) if high > low else 0.0
    rows = max(1, _STRIP_PIXELS // max(1, values[0].size))
    for top in range(0, len(values), rows):
        strip = (values[top : top + rows].astype(np.float64) - low) * factor
        scaled[top : top + rows] = np.rint(np.clip(np.nan_to_num(strip, nan=0.0), 0, 255))
    return scaled
