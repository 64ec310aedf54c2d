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
        """The boxes of an image's row; every box of a run passes here, so that calls and tests are few."""
        boxes = [cell["bbox_xywh"] for cell in row.get("objects") or ()]
        across, down = row.get("width"), row.get("height")
        self.boxes += len(boxes)
        self.below_one += sum(max(box) <= 1 and tuple(box[2:]) != (1, 1) for box in boxes)
        if not across or not down:
            return
        self.sized += len(boxes)
        far_across, far_down = (1 + _BEYOND) * across, (1 + _BEYOND) * down
        for x, y, width, height in boxes:
            self.beyond += x + width > far_across or y + height > far_down
            self.corners += x < width <= across + 1 and y < height <= down + 1
            aside, above = width / 2, height / 2
            self.centres += x - aside >= -1 and x + aside <= across + 1 and y - above >= -1 and y + above <= down + 1

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
