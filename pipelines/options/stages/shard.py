"""Options of `shard`: those that are fixed for a whole run, and those of the stage that opens every image."""

from pathlib import Path
from typing import Literal

from pydantic import field_validator

from pseudolabel.config import Config, option
from pseudolabel.pipelines.options.base import StageConfig
from pseudolabel.pixel_rule import ExifRule, Stretch
from pseudolabel.sources.place import check_url, is_url

_MOST_CHANNELS = 3


class PlanConfig(Config):
    """Options of `shard` that are fixed for a whole run."""

    images: str = option(
        ..., "folder, s3://bucket/prefix, tar shards {000..099}.tar, or *.parquet with the images", group="main"
    )
    annotations: Path | None = option(
        None, "what is known of the images: COCO, YOLO, VOC, labelme, CVAT or Label Studio, file or folder; none = "
        "bare images", group="main",
    )  # fmt: skip
    source: str | None = option(
        None, "format of the annotations, such as coco, yolo or label-studio; by default from what stands in them"
    )
    images_json: Path | None = option(None, "COCO file with images and categories of a bare list of boxes")
    strip_prefix: str = option("", "what file names begin with in the annotations and not below the images")
    box_format: Literal["auto", "xywh", "xyxy"] = option("auto", "of boxes in Parquet files; auto = by the numbers")
    crowds: Literal["as-given", "objects"] = option("as-given", "objects: regions marked as crowds are objects")
    shards: int | None = option(
        None, "number of shards, the units of work and of resuming; default: one for 16 images, from 16 shards on for "
        "256", group="main", ge=1, le=100_000,
    )  # fmt: skip
    sample: float | None = option(
        None, "only this share of the images, such as 0.01, or this number, such as 500: a pilot", group="main", gt=0
    )
    exif: ExifRule = option(
        "auto", "a rotation in the file: turn pictures as a viewer shows them (transpose: boxes are drawn on those), "
        "or take stored pixels", group="main",
    )  # fmt: skip
    stretch: Stretch = option(
        "auto",
        "how 16 bits become 8: none = by the type's white, percentile = by the image; auto = percentile above 8 bits",
    )
    channels: list[int] = option([], "of a TIFF of several channels: one for gray or three for colours, from 1")
    page: int | None = option(None, "of a TIFF of several pages, from 1", ge=1)

    @field_validator("images", mode="before")
    @classmethod
    def _from_path(cls, images: object) -> object:
        """A folder may be given as a path, too."""
        return str(images) if isinstance(images, Path) else images

    @field_validator("images")
    @classmethod
    def _without_credentials(cls, images: str) -> str:
        """Before anybody prints the config."""
        return check_url(images) if is_url(images) else images

    @field_validator("channels")
    @classmethod
    def _one_or_three(cls, channels: list[int]) -> list[int]:
        if len(channels) not in (0, 1, _MOST_CHANNELS) or any(channel < 1 for channel in channels):
            raise ValueError("one channel makes gray, three make colours; they count from 1")
        return channels


class ShardConfig(StageConfig):
    """Limits on what is opened. The rest of `shard`'s options belong to the plan."""

    max_pixels: int = option(120_000_000, "larger pictures are refused before they are decoded", ge=1, le=178_956_970)
    max_bytes: int = option(256 << 20, "larger image files are refused before they are read", ge=1, le=1 << 30)


class ShardOptions(ShardConfig, PlanConfig):
    """All options of `shard`; each part reads its own."""
