"""Views of a box: the box itself and boxes whose sides are moved a little, by a fixed pattern."""

import numpy as np
from jaxtyping import Float

from pseudolabel.boxes import clip_xyxy

MOST_VIEWS = 9
MOVE = 0.03  # of the box's own length along that axis
# signs of left, top, right, bottom; every pair of views moves every side once out and once in
_SIGNS = np.array(
    [
        (0, 0, 0, 0),
        (1, 1, 1, 1),
        (-1, -1, -1, -1),
        (-1, -1, 1, 1),
        (1, 1, -1, -1),
        (1, -1, 1, -1),
        (-1, 1, -1, 1),
        (1, -1, -1, 1),
        (-1, 1, 1, -1),
    ]
)


def views_of(
    boxes_xyxy: Float[np.ndarray, "n 4"], views: int, size_hw: tuple[int, int]
) -> Float[np.ndarray, "n views 4"]:
    """Each box with the sides moved by 3 % of its lengths, cut to the image; the first view is the box as it is."""
    lengths = np.tile(boxes_xyxy[:, 2:] - boxes_xyxy[:, :2], 2)
    moved = boxes_xyxy[:, None] + MOVE * lengths[:, None] * _SIGNS[None, :views]
    clipped = clip_xyxy(moved, size_hw)
    clipped[:, 0] = boxes_xyxy
    return clipped
