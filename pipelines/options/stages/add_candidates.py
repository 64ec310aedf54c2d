"""Options of `add-candidates`."""

from pathlib import Path
from typing import Literal

from pseudolabel.config import Config, option
from pseudolabel.pipelines.options.base import TABLE_NAME


class AddCandidatesConfig(Config):
    """Masks of another program as a source of `fuse`."""

    name: str = option(..., "the table below candidates/ that is written", pattern=TABLE_NAME, group="main")
    masks: Path = option(
        ...,
        "COCO results or instances (.json), a folder of PNGs named by annotation id, rows (.parquet, .arrow, "
        ".feather), or a folder of YOLO's .txt with polygons",
        group="main",
    )
    match: Literal["auto", "id", "box"] = option(
        "auto", "how masks find their objects: by annotation id, or by overlap with the box, one to one; auto: by id "
        "where most ids name an object on the same image", group="main",
    )  # fmt: skip
    min_iou: float = option(
        0.5,
        "least IoU of boxes: by box, a mask whose extent overlaps it less is not its mask",
        gt=0,
        le=1,
        needs={"match": ("auto", "box")},
    )
    knows_class: bool = option(
        False, "the masks' probabilities are of the object's class against all others, as a semantic segmenter's are"
    )
    overwrite: bool = option(False, "replace what stands there: the masks of this name", changes_result=False)
