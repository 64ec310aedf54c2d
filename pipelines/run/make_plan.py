"""From what the user has (a folder, and annotations in some format) to the frozen plan of a run."""

from pathlib import Path
from typing import Literal

from pydantic import field_validator

from pseudolabel.config import Config, option
from pseudolabel.errors import ConfigError
from pseudolabel.pipelines.run.paths import RunPaths
from pseudolabel.pipelines.run.plan import Plan, PlanRequest, write_plan
from pseudolabel.pixel_rule import ExifRule, Stretch
from pseudolabel.sources.place import absolute, check_url, is_url

_MOST_CHANNELS = 3


class PlanConfig(Config):
    """Options of `shard` that are fixed for a whole run."""

    images: str = option(..., "folder, s3://bucket/prefix, tar shards {000..099}.tar, or *.parquet with the images")
    annotations: Path | None = option(
        None, "boxes: COCO, YOLO, VOC, labelme, CVAT or Label Studio, file or folder; none = bare images"
    )
    source: Literal["coco", "cvat", "folder", "label-studio", "labelme", "voc", "yolo"] | None = option(
        None, "format of the annotations; by default from what stands in them"
    )
    images_json: Path | None = option(None, "COCO file with images and categories of a bare list of boxes")
    strip_prefix: str = option("", "what file names begin with in the annotations and not below the images")
    box_format: Literal["auto", "xywh", "xyxy"] = option("auto", "of boxes in Parquet files; auto = by the numbers")
    crowds: Literal["as-given", "objects"] = option("as-given", "objects: regions marked as crowds are objects")
    shards: int = option(8, "number of shards; a shard is the unit of work and of resuming", ge=1, le=100_000)
    exif: ExifRule = option(
        "auto", "turn pictures as a viewer shows them (transpose: and boxes are drawn on those), or take stored pixels"
    )
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


def make_plan(run: RunPaths, config: PlanConfig) -> Plan:
    """Read the input and freeze the plan; the same input again is no work.

    Raises:
        InputError: the folder or the annotations are missing or damaged.
        StaleOutputError: the run folder has another plan.
    """
    from pseudolabel.datasets import ReadOptions, detect_format, open_dataset

    root = absolute(config.images)
    if not is_url(root):
        _refuse_run_inside_images(run, Path(config.images))
    kind = config.source or detect_format(config.annotations, has_images_json=config.images_json is not None)
    options = ReadOptions(config.exif, config.strip_prefix, config.images_json, config.box_format, config.crowds)
    dataset = open_dataset(kind, images=root, annotations=config.annotations, options=options)
    request = PlanRequest(
        images_root=root,
        source=f"{kind}:{config.annotations or config.images}",
        num_shards=config.shards,
        exif=config.exif,
        categories=dataset.categories,
        info=dataset.info,
        licenses=dataset.licenses,
        stretch=config.stretch,
        channels=tuple(config.channels),
        page=config.page,
        notes=dataset.notes,
    )
    return write_plan(run, request, dataset.rows())


def _refuse_run_inside_images(run: RunPaths, images: Path) -> None:
    if run.root.resolve().is_relative_to(images.resolve()):
        raise ConfigError(f"the run folder {run.root} lies inside the image folder {images}; choose another place")
