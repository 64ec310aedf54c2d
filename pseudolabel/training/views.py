"""What views of teachers and students have in common: colours, and boxes in a window."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torchvision.transforms import v2

LEAST_SIDE_PX = 2.0  # of what a window leaves of an object


def strong_colours(*, blur: bool = False) -> v2.Compose:
    """Colour jitter (0.4, 0.4, 0.4, 0.1) with probability 0.8, grey with 0.2, and, if wanted, blur with 0.5.

    Source: BoxTeacher's "strong" and, with blur, "strongv2" augmentation.
    """
    steps: list[v2.Transform] = [v2.RandomApply([v2.ColorJitter(0.4, 0.4, 0.4, 0.1)], p=0.8), v2.RandomGrayscale(0.2)]
    if blur:
        steps.append(v2.RandomApply([v2.GaussianBlur(3)], p=0.5))
    return v2.Compose(steps)


def boxes_in_window(
    boxes: Float[Tensor, "n 4"], *, top: int, left: int, height: int, width: int
) -> tuple[Float[Tensor, "n 4"], Bool[Tensor, "n"]]:
    """Boxes cut by a window, from its corner, and whether enough is left of each."""
    boxes = (boxes - boxes.new_tensor([left, top, left, top])).clamp(min=0)
    boxes = torch.minimum(boxes, boxes.new_tensor([width, height, width, height]))
    return boxes, (boxes[:, 2:] - boxes[:, :2] >= LEAST_SIDE_PX).all(dim=1)


def mirrored_boxes(boxes: Float[Tensor, "n 4"], width: int) -> Float[Tensor, "n 4"]:
    """Boxes of an image of that width, mirrored left to right."""
    x0, y0, x1, y1 = boxes.unbind(dim=1)
    return torch.stack([width - x1, y0, width - x0, y1], dim=1)
