"""One small specimen of every part that has a name, for the laws of its kind: a part without one has no test."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from PIL import Image
from safetensors.torch import save_file

from pseudolabel.segmenters.base import SegmenterOptions

CLASSES = ("background", "disc", "star")

Specimen = Callable[[Path], tuple[str, SegmenterOptions]]


class _Network(torch.nn.Module):
    """Logits of three classes on the image's own grid."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Conv2d(3, len(CLASSES), 3, padding=1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.layer(images)
        return logits


def written(path: Path, text: str) -> Path:
    """The path of a file that has this text now."""
    path.write_text(text)
    return path


def _onnx(folder: Path) -> tuple[str, SegmenterOptions]:
    torch.manual_seed(3)
    path = folder / "net.onnx"
    torch.onnx.export(_Network().eval(), (torch.zeros(1, 3, 32, 48),), path, dynamo=True, verbose=False)
    card = {
        "name": "net",
        "input": {"mean": [0.5] * 3, "std": [0.25] * 3, "size": [32, 48]},
        "output": {"align_corners": False},
        "classes": list(CLASSES),
    }
    path.with_suffix(".yaml").write_text(yaml.safe_dump(card))
    return f"onnx:{path}", SegmenterOptions()


def _smp(folder: Path) -> tuple[str, SegmenterOptions]:
    import segmentation_models_pytorch as smp

    torch.manual_seed(3)
    smp.Unet("mobilenet_v2", encoder_weights=None, classes=len(CLASSES)).save_pretrained(folder / "unet")
    options = SegmenterOptions(classes=CLASSES, mean=(0.5,) * 3, std=(0.25,) * 3, size_hw=(32, 64), align_corners=False)
    return f"smp:{folder / 'unet'}", options


def _torchvision(folder: Path) -> tuple[str, SegmenterOptions]:
    from torchvision.models.segmentation import lraspp_mobilenet_v3_large

    torch.manual_seed(3)
    model = lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=len(CLASSES))
    save_file(model.state_dict(), folder / "lraspp.safetensors")
    options = SegmenterOptions(
        weights=folder / "lraspp.safetensors", classes=CLASSES, mean=(0.5,) * 3, std=(0.25,) * 3, size_hw=(64, 64),
        align_corners=False,
    )  # fmt: skip
    return "torchvision:lraspp_mobilenet_v3_large", options


def _labels(folder: Path) -> tuple[str, SegmenterOptions]:
    for name, size_hw in (("a", (40, 56)), ("b", (33, 21))):
        Image.fromarray((np.indices(size_hw).sum(axis=0) % len(CLASSES)).astype(np.uint8)).save(folder / f"{name}.png")
    return f"labels:{folder}", SegmenterOptions(label_format="raw", classes=CLASSES, ignore_index=255)


SEGMENTERS: dict[str, Specimen] = {
    "onnx": _onnx,
    "smp": _smp,
    "torchvision": _torchvision,
    "labels": _labels,
}


def _coco(folder: Path) -> Path | None:
    content: dict[str, Any] = {
        "images": [{"id": 7, "file_name": "a.png", "height": 40, "width": 56}],
        "categories": [{"id": 1, "name": "disc"}],
        "annotations": [{"id": 3, "image_id": 7, "category_id": 1, "bbox": [4, 6, 20, 10], "iscrowd": 0}],
    }
    (folder / "boxes.json").write_text(json.dumps(content))
    return folder / "boxes.json"


def _voc(folder: Path) -> Path | None:
    (folder / "voc").mkdir()
    box = "<bndbox><xmin>5</xmin><ymin>7</ymin><xmax>24</xmax><ymax>16</ymax></bndbox>"
    size = "<size><width>56</width><height>40</height><depth>3</depth></size>"
    text = f"<annotation><filename>a.png</filename>{size}<object><name>disc</name>{box}</object></annotation>"
    (folder / "voc" / "a.xml").write_text(text)
    return folder / "voc"


def _yolo(folder: Path) -> Path | None:
    (folder / "labels").mkdir()
    (folder / "data.yaml").write_text("names: [disc]\n")
    (folder / "labels" / "a.txt").write_text("0 0.25 0.275 0.357143 0.25\n")
    return folder / "data.yaml"


def _labelme(folder: Path) -> Path | None:
    shape = {"label": "disc", "points": [[4, 6], [24, 16]], "shape_type": "rectangle"}
    content = {"imagePath": "a.png", "imageHeight": 40, "imageWidth": 56, "shapes": [shape]}
    (folder / "labelme").mkdir()
    return written(folder / "labelme" / "a.json", json.dumps(content))


def _cvat(folder: Path) -> Path | None:
    box = '<box label="disc" occluded="0" xtl="4" ytl="6" xbr="24" ybr="16" z_order="0"/>'
    image = f'<image id="0" name="a.png" width="56" height="40">{box}</image>'
    return written(folder / "cvat.xml", f"<annotations><version>1.1</version>{image}</annotations>")


def _label_studio(folder: Path) -> Path | None:
    value = {"x": 400 / 56, "y": 15, "width": 2000 / 56, "height": 25, "rotation": 0, "rectanglelabels": ["disc"]}
    result = {
        "id": "r", "type": "rectanglelabels", "from_name": "label", "to_name": "image", "original_width": 56,
        "original_height": 40, "image_rotation": 0, "value": value,
    }  # fmt: skip
    task = {"id": 1, "data": {"image": "a.png"}, "annotations": [{"id": 2, "result": [result]}]}
    return written(folder / "tasks.json", json.dumps([task]))


def _folder(folder: Path) -> Path | None:
    return None  # images alone


# annotations of `images/a.png`, a picture of 40 rows and 56 columns; a box of class disc at (4, 6), 20 wide and 10 high
READERS: dict[str, Callable[[Path], Path | None]] = {
    "coco": _coco,
    "cvat": _cvat,
    "label-studio": _label_studio,
    "labelme": _labelme,
    "voc": _voc,
    "yolo": _yolo,
    "folder": _folder,
}
