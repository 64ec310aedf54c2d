"""A segmenter of one layer that knows classes by their colour."""

import colorsys
from collections.abc import Mapping
from pathlib import Path

import torch
import yaml

SIZE_HW = (96, 96)
# about the colours of the drawn scenes; the ground is gray
COLORS = {"background": (0.5, 0.5, 0.5)} | {
    name: colorsys.hsv_to_rgb(hue, 0.8, 0.8)
    for name, hue in {"disc": 0.02, "ring": 0.20, "star": 0.42, "blob": 0.62, "bar": 0.80}.items()
}


class _Nearest(torch.nn.Module):
    """Logits -20 |x - c|^2 of every class's colour c, less what all of them share."""

    def __init__(self, colors: torch.Tensor) -> None:
        super().__init__()
        self.layer = torch.nn.Conv2d(3, len(colors), 1)
        self.layer.weight.data = 40 * colors[:, :, None, None]
        self.layer.bias = torch.nn.Parameter(-20 * colors.square().sum(dim=1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.layer(images)
        return logits


def write_color_network(
    path: Path, colors: Mapping[str, tuple[float, ...]], size_hw: tuple[int, int] = (96, 96)
) -> None:
    """An ONNX file with its card."""
    network = _Nearest(torch.tensor(list(colors.values()))).eval()
    torch.onnx.export(network, (torch.zeros(1, 3, *SIZE_HW),), path, dynamo=True, verbose=False)
    card = {
        "name": "colors",
        "input": {"mean": [0.0] * 3, "std": [1.0] * 3, "size": list(SIZE_HW)},
        "output": {"align_corners": False},
        "classes": list(colors),
    }
    path.with_suffix(".yaml").write_text(yaml.safe_dump(card))
