"""From pixels to a network's input."""

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float32, UInt8

from pseudolabel.segmenters.card import InputCard


def prepare(
    rgb: UInt8[np.ndarray, "h w 3"], size_hw: tuple[int, int], card: InputCard
) -> Float32[torch.Tensor, "3 net_h net_w"]:
    """An image resized (bilinear, antialiased, in uint8 as Pillow does it) and normalised by the card."""
    planes = torch.from_numpy(rgb if rgb.flags.writeable else rgb.copy()).permute(2, 0, 1)
    if planes.shape[1:] != size_hw:
        planes = F.interpolate(planes[None], size_hw, mode="bilinear", antialias=True)[0]
    if card.color == "bgr":
        planes = planes.flip(0)
    mean = torch.tensor(card.mean).view(3, 1, 1)
    scale = 1 / torch.tensor(card.std).view(3, 1, 1)
    return planes.to(torch.float32, memory_format=torch.contiguous_format).mul_(scale / 255).sub_(mean * scale)
