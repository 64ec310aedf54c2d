"""Options of `export`."""

from pathlib import Path
from typing import Literal

from pseudolabel.config import Config, option

_COCO = ("coco", "roboflow", "cvat", "detectron2", "mmdet", "fiftyone")


class ExportConfig(Config):
    """What is written, and where."""

    to: str = option(
        ...,
        "yolo, coco, roboflow, label-studio, cvat, label-tiff, huggingface, voc, panoptic, labelme, ...",
        group="main",
    )
    out: Path = option(..., "folder that takes: what is written; it must not be there yet", group="main")
    decisions: list[Literal["keep", "review", "box_only", "ignore"]] = option(
        ["keep", "review", "box_only"], "labels of these decisions go out; of box_only the box alone", group="main"
    )
    min_score: float = option(0.0, "labels of lower scores stay behind", group="main", ge=0, le=1)
    split: float | None = option(
        None, "share of images in train, the rest in val; default: as the data, else 0.9 where a tool wants a val",
        group="main", gt=0, le=1,
    )  # fmt: skip
    images: Literal["copy", "link", "none"] = option(
        "copy", "the pictures: copies, links to where they are, or none", group="main"
    )
    segmentation: Literal["rle", "uncompressed", "polygon"] = option(
        "rle", "masks: RLE as a string or as a list, or polygons", needs={"to": (*_COCO, "labelme")}
    )
    ids: Literal["keep", "contiguous"] = option(
        "contiguous", "category ids: those of the data, or 1, 2, 3 by their order", needs={"to": (*_COCO, "panoptic")}
    )
    parts: Literal["largest", "bridge", "split"] = option(
        "bridge",
        "a mask of several parts: the largest, all joined by bridges, or an object each",
        needs={"to": ("yolo",)},
    )
    holes: Literal["fill", "bridge"] = option(
        "bridge", "holes of outlines: filled, or cut free by a bridge", needs={"to": ("yolo", *_COCO, "labelme")}
    )
    min_round_trip: float = option(
        0.95, "fail with exit code 5 where masks, read again, have a lower mean IoU", ge=0, le=1
    )
    overwrite: bool = option(False, "replace what stands there: an earlier export", group="main")
