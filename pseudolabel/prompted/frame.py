"""Where a part of an image lies in a model's square input, and where the cells of the model's answer lie on the image.

A model of the SAM family sees S x S px. SAM itself and its kin bring the longer side to S and pad to the right and
below (`padded`), SAM 2 and its kin stretch both sides to S (`stretched`). The answer is a grid of equal cells over the
whole input, padding included. Conventions are those of `pseudolabel.masks`.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float

from pseudolabel.masks import Grid

Fit = Literal["padded", "stretched"]
Window = tuple[int, int, int, int]  # left, top, right, bottom in whole pixels of the image, ends exclusive


@dataclass(frozen=True, slots=True)
class Frame:
    """A window of an image in a square input of `input_px`."""

    window: Window
    factor_xy: tuple[float, float]  # pixels of the input per pixel of the image
    input_px: int

    def prompts(self, boxes_xyxy: Float[np.ndarray, "n 4"]) -> Float[np.ndarray, "n 4"]:
        """Boxes of the image as the model is told them."""
        left, top, _, _ = self.window
        moved = boxes_xyxy - np.array([left, top, left, top])
        prompts: Float[np.ndarray, "n 4"] = moved * np.array(self.factor_xy * 2)
        return prompts

    def grid(self, cells_hw: tuple[int, int]) -> Grid:
        """The cells of an answer on the image; those of the padding lie beyond the window."""
        left, top, _, _ = self.window
        stride_x = self.input_px / cells_hw[1] / self.factor_xy[0]
        stride_y = self.input_px / cells_hw[0] / self.factor_xy[1]
        return Grid(float(left), float(top), stride_x, stride_y, *cells_hw)


def frame_of(window: Window, input_px: int, fit: Fit) -> Frame:
    """The frame of a window; where the longer side is brought to `input_px`, the shorter one is rounded to pixels."""
    width, height = window[2] - window[0], window[3] - window[1]
    sides = resized_hw((height, width), input_px, fit)
    return Frame(window, (sides[1] / width, sides[0] / height), input_px)


def resized_hw(size_hw: tuple[int, int], input_px: int, fit: Fit) -> tuple[int, int]:
    """Height and width at which an image of `size_hw` enters, before padding."""
    if fit == "stretched":
        return input_px, input_px
    scale = input_px / max(size_hw)
    return max(int(size_hw[0] * scale + 0.5), 1), max(int(size_hw[1] * scale + 0.5), 1)


def window_around(box_xyxy: tuple[float, ...], size_hw: tuple[int, int], room: float, least_px: int = 1) -> Window:
    """The square around a box with `room` times its longer side on every side, in whole pixels, cut to the image.

    Args:
        least_px: side of the smallest square.
    """
    x0, y0, x1, y1 = box_xyxy
    half = max(max(x1 - x0, y1 - y0) * (1 + 2 * room), least_px) / 2
    left, right = _span((x0 + x1) / 2, half, size_hw[1])
    top, bottom = _span((y0 + y1) / 2, half, size_hw[0])
    return left, top, right, bottom


def _span(middle: float, half: float, limit: int) -> tuple[int, int]:
    low = min(max(int(np.floor(middle - half)), 0), limit - 1)
    return low, min(max(int(np.ceil(middle + half)), low + 1), limit)
