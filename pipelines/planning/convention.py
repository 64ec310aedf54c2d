"""Whether given boxes are what every reader hands on, left, top, width and height in pixels, or something else."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_MUCH = 0.1  # of the boxes: sloppy ones reach out of their images, too, but not so many
_LEAST = 3
_BEYOND = 0.05  # of an image's side: further out than any rounding
_ALL = 0.99


@dataclass(slots=True)
class BoxConvention:
    """Counts, of all boxes of a plan, how many lie as they should and how many would if they were read otherwise."""

    boxes: int = 0
    sized: int = 0  # of them, those whose image's size the annotations tell
    below_one: int = 0
    beyond: int = 0
    corners: int = 0
    centres: int = 0

    def add(self, row: Mapping[str, Any]) -> None:
        """The boxes of an image's row."""
        for cell in row.get("objects") or ():
            x, y, width, height = cell["bbox_xywh"]
            self.boxes += 1
            self.below_one += max(x, y, width, height) <= 1 and (width, height) != (1, 1)
            if row.get("width") and row.get("height"):
                self._place((x, y, width, height), (row["width"], row["height"]))

    def _place(self, box: tuple[float, float, float, float], size_wh: tuple[int, int]) -> None:
        (x, y, width, height), (across, down) = box, size_wh
        self.sized += 1
        self.beyond += x + width > (1 + _BEYOND) * across or y + height > (1 + _BEYOND) * down
        self.corners += x < width <= across + 1 and y < height <= down + 1
        self.centres += _within(x, width, across) and _within(y, height, down)

    def trouble(self) -> str | None:
        """What the boxes seem to be instead, in words; None where they may be what they should."""
        if self.boxes and self.below_one == self.boxes:
            return (
                f"all {self.boxes} boxes lie within one pixel: they seem to be shares of the image. "
                "Multiply them by its width and height"
            )
        if self.beyond < max(_LEAST, _MUCH * self.sized):
            return None
        found = f"{self.beyond} of {self.sized} boxes reach far out of their images as left, top, width, height"
        if self.corners >= _ALL * self.sized:
            return (
                f"{found}, and all fit as corners, left, top, right, bottom. Subtract left from right, top from bottom"
            )
        if self.centres >= _ALL * self.sized:
            return f"{found}, and all fit as centre x, centre y, width, height. Subtract half the width and height"
        return None


def _within(centre: float, side: float, whole: int) -> bool:
    return centre - side / 2 >= -1 and centre + side / 2 <= whole + 1
