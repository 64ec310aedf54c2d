"""How a picture and its label map come to the network: resized to sides that its strides divide, flipped or not."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int, UInt8
from torch import Tensor

from pseudolabel.encoders.encoder import COARSEST
from pseudolabel.siseg.network import STRIDE
from pseudolabel.siseg.pairs import IGNORE, box_owners


@dataclass(frozen=True, slots=True)
class LabelledBoxes:
    """Boxes of single objects in pixels of an image, and the label that each object has in its label map."""

    boxes_xyxy: Sequence[tuple[float, float, float, float]] = ()
    labels: Sequence[int] = ()


@dataclass(frozen=True, slots=True)
class View:
    """One picture as the network sees it, and its labels (0 background, 255 ignore) on the stride-4 grid."""

    name: str
    image: UInt8[Tensor, "3 H W"]
    labels: UInt8[Tensor, "h w"]
    owners: Int[Tensor, "2 h w"]  # which boxes hold each cell; see `box_owners`


NO_BOXES = LabelledBoxes()


def view_size(size_hw: tuple[int, int], scale: float) -> tuple[int, int]:
    """Height and width at `scale`, rounded to what the strides divide: no padding, and a flip is exact."""
    height, width = (max(COARSEST, COARSEST * round(side * scale / COARSEST)) for side in size_hw)
    return height, width


def resize_image(
    image: UInt8[np.ndarray, "H W 3"], size_hw: tuple[int, int], *, flip: bool = False
) -> UInt8[Tensor, "3 h w"]:
    """The picture at another size, bilinear with antialiasing, mirrored left to right if asked."""
    from PIL import Image

    picture = Image.fromarray(image)
    if picture.size != (size_hw[1], size_hw[0]):
        picture = picture.resize((size_hw[1], size_hw[0]), Image.Resampling.BILINEAR)
    pixels = np.asarray(picture)[:, ::-1] if flip else np.asarray(picture)
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))


def grid_labels(labels: UInt8[np.ndarray, "H W"], grid_hw: tuple[int, int]) -> UInt8[Tensor, "h w"]:
    """The label at every cell's centre."""
    rows = ((np.arange(grid_hw[0]) + 0.5) * labels.shape[0] / grid_hw[0]).astype(np.int64)
    columns = ((np.arange(grid_hw[1]) + 0.5) * labels.shape[1] / grid_hw[1]).astype(np.int64)
    return torch.from_numpy(np.ascontiguousarray(labels[rows][:, columns]))


def make_view(
    name: str,
    image: UInt8[np.ndarray, "H W 3"],
    labels: UInt8[np.ndarray, "H W"],
    *,
    boxes: LabelledBoxes = NO_BOXES,
    scale: float = 1.0,
    flip: bool = False,
) -> View:
    """A training view of an image.

    Raises:
        ValueError: image and labels differ in size.
    """
    if image.shape[:2] != labels.shape:
        raise ValueError(f"{name}: the image is {image.shape[:2]}, its label map {labels.shape}")
    height, width = view_size(labels.shape, scale)
    cells = grid_labels(labels, (height // STRIDE, width // STRIDE))
    x, y = cells.shape[1] / labels.shape[1], cells.shape[0] / labels.shape[0]
    owners = box_owners(cells, [(x1 * x, y1 * y, x2 * x, y2 * y) for x1, y1, x2, y2 in boxes.boxes_xyxy], boxes.labels)
    if flip:
        cells, owners = cells.flip(1), owners.flip(2)
    return View(name, resize_image(image, (height, width), flip=flip), cells, owners)


def object_labels(labels: UInt8[np.ndarray, "H W"], objects: Collection[int]) -> UInt8[np.ndarray, "H W"]:
    """Labels with 0 for what is no object and class index + 1 for what is; 255 stays ignored."""
    table = np.zeros(256, np.uint8)
    table[IGNORE] = IGNORE
    for index in objects:
        table[index] = index + 1
    renamed: UInt8[np.ndarray, "H W"] = table[labels]
    return renamed
