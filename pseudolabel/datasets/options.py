"""What a reader is told besides where images and annotations lie."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pseudolabel.pixel_rule import ExifRule


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """How annotations are read.

    Args:
        exif: the rule by which pictures are read; boxes are relative to the picture that it gives.
        strip_prefix: what file names begin with and files below the images do not.
        images_json: the COCO file with images and categories that a bare list of boxes belongs to.
        box_format: of the boxes in Parquet files; `auto` goes by the numbers.
        crowds: `objects` takes regions that are marked as crowds for objects.
    """

    exif: ExifRule = "auto"
    strip_prefix: str = ""
    images_json: Path | None = None
    box_format: Literal["auto", "xywh", "xyxy"] = "auto"
    crowds: Literal["as-given", "objects"] = "as-given"
