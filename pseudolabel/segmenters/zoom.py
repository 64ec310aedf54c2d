"""A closer look at given boxes: the segmenter once more on the crop around a box, at the size of a whole image.

A network with a stride of 16 px and an input of 513 px sees a small object of a photograph as a handful of cells. The
crop shows the same object at several times the size, and with `room` times its longer side around it there is still
enough to recognise it by. What is kept of a look is the probability of the box's own class, on the cells that
`pseudolabel.segmenters.candidates` works with.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float32

from pseudolabel.masks import Grid, SoftMask, resample
from pseudolabel.segmenters.base import Photo

LEAST_SIDE_PX = 24  # of a crop: fewer pixels show nothing, however large they are made


@dataclass(frozen=True, slots=True)
class Look:
    """One object of one photo: the crop around it, its class in the segmenter's list, the cells that are asked for."""

    photo: Photo
    crop_xyxy: tuple[int, int, int, int]
    class_index: int
    grid: Grid

    @property
    def size_hw(self) -> tuple[int, int]:
        left, top, right, bottom = self.crop_xyxy
        return bottom - top, right - left

    def closer(self) -> Photo:
        """The crop as a photo of its own.

        Raises:
            ValueError: the photo has no pixels.
        """
        if self.photo.rgb is None:
            raise ValueError(f"{self.photo.file_name}: a closer look needs the image's pixels")
        left, top, right, bottom = self.crop_xyxy
        return Photo(self.photo.file_name, self.size_hw, self.photo.rgb[top:bottom, left:right])


def crop_around(
    box_xyxy: tuple[float, float, float, float], size_hw: tuple[int, int], room: float
) -> tuple[int, int, int, int]:
    """The square around a box with `room` times its longer side on every side, in whole pixels, cut to the image."""
    x0, y0, x1, y1 = box_xyxy
    half = max(max(x1 - x0, y1 - y0) * (1 + 2 * room), LEAST_SIDE_PX) / 2
    middle_x, middle_y = (x0 + x1) / 2, (y0 + y1) / 2
    left, top = max(0, int(np.floor(middle_x - half))), max(0, int(np.floor(middle_y - half)))
    right, bottom = int(np.ceil(middle_x + half)), int(np.ceil(middle_y + half))
    return left, top, max(min(right, size_hw[1]), left + 1), max(min(bottom, size_hw[0]), top + 1)


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
