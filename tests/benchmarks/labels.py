"""From logits to label and confidence: ours against upsampling, softmax and maximum over the full volume.

The trained case runs only where the shared data and weights are; the others are drawn.
"""

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from harness import interleaved, report, script_parser

from pseudolabel.segmenters.reduce import reduce_logits

SIZE_HW = (480, 640)


def main() -> None:
    script_parser(__doc__).parse_args()
    torch.set_num_threads(1)
    rows = [_row(name, logits, align_corners) for name, logits in _cases().items() for align_corners in (False, True)]
    report("labels", rows, on="CPU seconds per image of 640x480, one thread, median of 7", seeds=[0])


def _cases() -> dict[str, torch.Tensor]:
    cases = {
        "81 classes, 13 of them in the image, stride 4": _scene_logits(81, 13, (128, 128)),
        "81 classes, 13 of them in the image, stride 16": _scene_logits(81, 13, (33, 33)),
        "150 classes of noise, none can be dropped, stride 16": _noise(150, (33, 33)),
    }
    trained = _trained()
    return cases if trained is None else {"21 VOC classes, trained, stride 16": trained, **cases}


def _scene_logits(classes: int, present: int, grid: tuple[int, int]) -> torch.Tensor:
    """Smooth blobs of a few classes far above the rest, as a trained network gives them."""
    generator = torch.Generator().manual_seed(0)
    coarse = 8 * torch.randn(1, classes, 9, 9, generator=generator)
    coarse[:, present:] -= 25
    return F.interpolate(coarse, grid, mode="bicubic", align_corners=True)[0].contiguous()


def _noise(classes: int, grid: tuple[int, int]) -> torch.Tensor:
    return torch.randn(classes, *grid, generator=torch.Generator().manual_seed(0))


def _trained() -> torch.Tensor | None:
    from PIL import Image

    from pseudolabel.segmenters.card import read_card
    from pseudolabel.segmenters.onnx import OnnxNetwork
    from pseudolabel.segmenters.preprocess import prepare

    shared = Path(os.environ.get("PSEUDOLABEL_SHARED") or Path(__file__).parents[3] / "shared")
    weights = shared / "weights" / "deeplabv3_mobilenetv2_voc21.onnx"
    if not weights.is_file():
        return None
    photo = sorted((shared / "data" / "coco-dev" / "images").iterdir())[0]
    card = read_card(weights.with_suffix(".yaml"))
    rgb = np.array(Image.open(photo).convert("RGB"))
    return OnnxNetwork(weights)(prepare(rgb, (513, 513), card.input)[None])[0].clone()


def _row(case: str, logits: torch.Tensor, align_corners: bool) -> dict[str, Any]:
    label, probability = _plain(logits, align_corners)
    ours = reduce_logits(logits, SIZE_HW, align_corners=align_corners)
    seconds = interleaved(
        {
            "reference": lambda: _plain(logits, align_corners),
            "ours": lambda: reduce_logits(logits, SIZE_HW, align_corners=align_corners),
        },
        repeats=7,
    )
    return {
        "case": f"{case}, align_corners={align_corners}",
        "reference_s": seconds["reference"],
        "ours_s": seconds["ours"],
        "ratio": seconds["reference"] / seconds["ours"],
        "max_abs_diff": float(np.abs(ours.confidence / 255 - probability).max()),
        "labels_that_differ": int((ours.label_map != label).sum()),
    }


def _plain(logits: torch.Tensor, align_corners: bool) -> tuple[np.ndarray, np.ndarray]:
    upsampled = F.interpolate(logits[None], SIZE_HW, mode="bilinear", align_corners=align_corners)[0]
    probability, label = upsampled.softmax(dim=0).max(dim=0)
    return label.to(torch.uint8).numpy(), probability.numpy()


if __name__ == "__main__":
    main()
