"""Options of what is asked of a finished run or of a trained student."""

from pathlib import Path
from typing import Literal

from pseudolabel.config import Config, Values, option
from pseudolabel.pipelines.options.base import DEVICE

_TRUTH = "COCO file with true masks"
_NONE_NAMED = Values("left out", lambda named: not named)


class EvaluateConfig(Config):
    """What is measured against what."""

    ground_truth: Path = option(..., f"{_TRUTH}, under the ids of the boxes file", group="main")
    predictions: Path | None = option(
        None, "COCO file to measure; default: the run's pseudo/instances.json", group="main"
    )
    categories: list[str] = option([], "class names to measure; default: all", group="main")
    min_area: int = option(0, "least area of a true mask, in pixels", group="main", ge=0)
    detections: int = option(
        100, "most objects of an image: that count for AP, of each class; 300 where images are crowded", group="main",
        ge=1,
    )  # fmt: skip
    min_mean_iou: float | None = option(None, "fail with exit code 5 below this mean IoU", group="main", ge=0, le=1)


class CalibrateConfig(Config):
    """What is learned from what."""

    ground_truth: Path | None = option(
        None, f"{_TRUTH}, of some or all objects, under the ids of the boxes; default: what review left", group="main"
    )
    reviews: bool = option(True, "learn from masks that review left: accepted, taken or drawn", group="main")
    output: Path | None = option(
        None, "the file that is written; default: calibration.json in the run folder", group="main"
    )
    target_precision: float | None = option(
        None, "choose the score from which this share of masks is good", group="main", gt=0, le=1
    )
    at_iou: float = option(0.75, "what a good mask is", group="main", needs={"target_precision": ()}, gt=0, le=1)


class PictureConfig(Config):
    """What is drawn."""

    object: list[int] = option([], "annotation id: this object large, with every source's candidate", group="main")
    pictures: int = option(
        4, "how many pictures: of whole images", group="main", needs={"object": _NONE_NAMED}, ge=0, le=10_000
    )
    objects: int = option(
        36, "how many objects on the sheet, evenly over the ranks of score", group="main",
        needs={"object": _NONE_NAMED}, ge=0, le=400,
    )  # fmt: skip
    ground_truth: Path | None = option(None, f"{_TRUTH}, drawn as white outlines", group="main")


class PredictConfig(Config):
    """Options of `predict`."""

    images: Path = option(..., "folder of images", group="main")
    out: Path = option(..., "folder that takes: results.json, images.json and pictures", group="main")
    annotations: Path | None = option(
        None, "what is known of the images: a COCO file that says which, and their ids; default: all, from 1"
    )
    ground_truth: Path | None = option(None, f"{_TRUTH}, to measure the AP against", group="main")
    long_side: int | None = option(
        None, "longer side in px at which images enter, shape kept; default: as in training", ge=16, le=8192
    )
    least_score: float = option(0.05, "lower scores are left out: of results.json", group="main", ge=0, le=1)
    detections: int | None = option(
        None, "most objects of an image: that are looked for, and that count for AP; default: as in training",
        group="main", ge=1,
    )  # fmt: skip
    pictures: int = option(8, "how many pictures: of images with what was found", group="main", ge=0)
    exif: Literal["transpose", "ignore"] = option(
        "transpose", "a rotation in the file: turn pictures as a viewer shows them, or take the stored pixels"
    )
    device: str = option("auto", "auto, cpu, cuda or cuda:N", group="machine", pattern=DEVICE)
    threads: int = option(0, "CPU threads: 0 = torch's choice", group="machine", ge=0)


class ExportModelConfig(Config):
    """Options of `export-model`."""

    onnx: Path | None = option(None, "ONNX file to write", group="main")
    torch_export: Path | None = option(None, ".pt2 file of torch.export to write", group="main")
    image_px: int = option(
        0, "side of the square input, a multiple of 32; 0 = as in training", group="main", ge=0, multiple_of=32
    )


class ModelsConfig(Config):
    """What is listed."""

    kind: list[Literal["segmenters", "promptable models", "encoders"]] = option(
        [], "models of this kind alone; default: all", group="main"
    )


class CardConfig(Config):
    """Options of `card`."""

    output: Path | None = option(None, "the file that is written; default: none, the card is printed", group="main")
    classes_from: Literal["voc", "coco", "ade20k", "cityscapes"] | None = option(
        None, "the data set whose classes they are, in its order; default: numbers", group="main"
    )
