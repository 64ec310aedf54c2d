"""A closer look at given boxes: the segmenter once more on the crop around a box, enlarged.

A network with a stride of 16 px and an input of 513 px sees a small object of a photograph as a handful of cells. The
crop shows the same object at several times the size, and with `room` times its longer side around it there is still
enough to recognise it by. The wider a look, the less it is enlarged, so that two looks differ in scale, too; where the
network takes other sizes than its own, such a crop enters at a smaller one. A crop that is nearly the whole image is
the whole image, which the network has seen. What is kept of a look is the probability of the box's own class, on the
cells that `pseudolabel.segmenters.candidates` works with.
"""

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from jaxtyping import Float32

from pseudolabel.masks import Grid, SoftMask, resample
from pseudolabel.segmenters.base import Photo

LEAST_SIDE_PX = 24  # of a crop: fewer pixels show nothing, however large they are made
WHOLE = 0.8  # a crop of this share of the image is all of it
SHARES = (3 / 8, 1 / 2, 5 / 8, 3 / 4, 1.0)  # of a whole image's size at which crops enter; few, as batches have one
Crop: TypeAlias = tuple[int, int, int, int]  # left, top, right and bottom in whole pixels, ends exclusive


@dataclass(frozen=True, slots=True)
class Look:
    """One object of one photo: the crop around it, its class in the segmenter's list, the cells that are asked for.

    `enlarged` says how many times, as far as the size of a whole image allows it.
    """

    photo: Photo
    crop_xyxy: Crop
    class_index: int
    grid: Grid
    enlarged: float = np.inf

    @property
    def size_hw(self) -> tuple[int, int]:
        left, top, right, bottom = self.crop_xyxy
        return bottom - top, right - left

    @property
    def is_whole(self) -> bool:
        """Whether it shows all of the photo."""
        return self.crop_xyxy == whole_of(self.photo.size_hw)

    def closer(self) -> Photo:
        """The crop as a photo of its own.

        Raises:
            ValueError: the photo has no pixels.
        """
        if self.photo.rgb is None:
            raise ValueError(f"{self.photo.file_name}: a closer look needs the image's pixels")
        left, top, right, bottom = self.crop_xyxy
        return Photo(self.photo.file_name, self.size_hw, self.photo.rgb[top:bottom, left:right])


def whole_of(size_hw: tuple[int, int]) -> Crop:
    """The crop that shows all of an image."""
    return 0, 0, size_hw[1], size_hw[0]


def crop_around(box_xyxy: tuple[float, float, float, float], size_hw: tuple[int, int], room: float) -> Crop:
    """The square around a box with `room` times its longer side on every side, in whole pixels, cut to the image.

    Where that is most of the image, it is the whole of it.
    """
    x0, y0, x1, y1 = box_xyxy
    half = max(max(x1 - x0, y1 - y0) * (1 + 2 * room), LEAST_SIDE_PX) / 2
    middle_x, middle_y = (x0 + x1) / 2, (y0 + y1) / 2
    left, top = max(0, int(np.floor(middle_x - half))), max(0, int(np.floor(middle_y - half)))
    right, bottom = int(np.ceil(middle_x + half)), int(np.ceil(middle_y + half))
    right, bottom = max(min(right, size_hw[1]), left + 1), max(min(bottom, size_hw[0]), top + 1)
    shown = (right - left) * (bottom - top) / (size_hw[0] * size_hw[1])
    return whole_of(size_hw) if shown >= WHOLE else (left, top, right, bottom)


def enlargement(room: float) -> float:
    """How many times a look of that room is enlarged: 4 times with half the box's side around it, 1.4 times with all.

    Four times for both rooms costs a third more and gives no better masks.
    """
    return float(1.4 / room**1.5)


def share_of(look: Look, whole_px: int) -> float:
    """The share of a whole image's size at which a look enters: the least that enlarges its crop enough.

    Args:
        whole_px: longer side of a whole image in the network.
    """
    wanted = look.enlarged * max(look.size_hw) / whole_px
    return next((share for share in SHARES if share >= wanted), SHARES[-1])


def seen(logits: Float32[torch.Tensor, "c h w"], look: Look, *, align_corners: bool) -> SoftMask:
    """The probability of the look's class on its cells: logits read bilinearly, softmax over the classes, as uint8.

    Args:
        logits: finite, of the crop, on the network's own grid.
        align_corners: how that grid maps to the crop, as in `torch.nn.functional.interpolate`.
    """
    source = _logit_grid(look, (logits.shape[1], logits.shape[2]), align_corners)
    read = np.stack([resample(plane, source, look.grid) for plane in logits.float().cpu().numpy()])
    probability = torch.from_numpy(read).softmax(dim=0)[look.class_index]
    return SoftMask(look.grid, (probability * 255).round().to(torch.uint8).numpy())


def _logit_grid(look: Look, cells_hw: tuple[int, int], align_corners: bool) -> Grid:
    """Where the network's grid lies on the image; with aligned corners its outer points are the outer pixels' centres.

    It then reaches beyond the crop by half a cell less half a pixel, which the image's own border may cut off.
    """
    left, top, _, _ = look.crop_xyxy
    x0, stride_x = _axis(left, look.size_hw[1], cells_hw[1], align_corners)
    y0, stride_y = _axis(top, look.size_hw[0], cells_hw[0], align_corners)
    return Grid(x0, y0, stride_x, stride_y, *cells_hw)


def _axis(start: int, pixels: int, cells: int, align_corners: bool) -> tuple[float, float]:
    if not align_corners or cells == 1 or pixels == 1:
        return float(start), pixels / cells
    stride = (pixels - 1) / (cells - 1)
    return start + 0.5 - stride / 2, stride
