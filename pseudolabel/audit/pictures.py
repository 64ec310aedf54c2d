"""A picture of one issue: the given box in orange and dashes, the suggested one in blue."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw

from pseudolabel.audit.issues import Box, Issue

_SIDE_PX = 640
_LEAST_MARGIN_PX = 24
_GIVEN, _SUGGESTED = (255, 159, 28), (76, 201, 240)


def issue_picture(rgb: UInt8[np.ndarray, "h w 3"], given: Sequence[Box], issue: Issue) -> Image.Image:
    """The surroundings of an issue, cut out first and scaled then, at most 640 px along a side."""
    boxes = [*given, *([issue.box_xyxy] if issue.box_xyxy else [])]
    left, top, right, bottom = _around(boxes, (rgb.shape[0], rgb.shape[1]))
    cut = Image.fromarray(rgb[top:bottom, left:right])
    scale = _SIDE_PX / max(cut.size)
    picture = cut.resize((max(1, round(cut.width * scale)), max(1, round(cut.height * scale))), reducing_gap=3)
    pen = ImageDraw.Draw(picture)
    for box in given:
        pen.rectangle(_placed(box, left, top, scale), outline=_GIVEN, width=3)
    if issue.box_xyxy:
        pen.rectangle(_placed(issue.box_xyxy, left, top, scale), outline=_SUGGESTED, width=2)
    text = f"{issue.kind} {issue.score:.2f}: {issue.suggestion}"
    pen.rectangle((0, 0, pen.textlength(text) + 8, 15), fill=(0, 0, 0))
    pen.text((4, 2), text, fill=(255, 255, 255))
    return picture


def _around(boxes: Sequence[Box], size_hw: tuple[int, int]) -> tuple[int, int, int, int]:
    corners = np.array(boxes)
    low, high = corners[:, :2].min(axis=0), corners[:, 2:].max(axis=0)
    margin = max(_LEAST_MARGIN_PX, 0.3 * float((high - low).max()))
    left, top = (int(max(0, min(v - margin, end - 1))) for v, end in zip(low, size_hw[::-1], strict=True))
    right, bottom = (int(min(end, v + margin)) for v, end in zip(high, size_hw[::-1], strict=True))
    return left, top, max(right, left + 1), max(bottom, top + 1)


def _placed(box: Box, left: int, top: int, scale: float) -> tuple[float, float, float, float]:
    x0, y0, x1, y1 = ((v - (left, top)[place % 2]) * scale for place, v in enumerate(box))
    return (x0, y0, max(x1, x0), max(y1, y0))
