"""How image files become pictures, fixed once for a whole run."""

from dataclasses import dataclass
from typing import Literal

ExifRule = Literal["auto", "transpose", "ignore"]
Stretch = Literal["auto", "none", "percentile"]


@dataclass(frozen=True, slots=True)
class PixelRule:
    """The rule that `pseudolabel.images` decodes by.

    Args:
        exif: `ignore` gives the pixels as stored, the others as a viewer shows them; `auto` and `transpose` differ in
            how annotations are checked, see `pseudolabel.datasets.frame`.
        stretch: how pixels of more than eight bits become bytes, see `pseudolabel.stretch`.
        channels: of a TIFF of several, from 1, one or three; empty for the colours, or for the first.
        page: of a TIFF of several, from 1; None for the first.
    """

    exif: ExifRule = "auto"
    stretch: Stretch = "auto"
    channels: tuple[int, ...] = ()
    page: int | None = None
