"""From what the user has (a folder, and annotations in some format) to the frozen plan of a run."""

from pathlib import Path
from typing import Literal

from pydantic import field_validator

from pseudolabel.config import Config, option
from pseudolabel.errors import ConfigError
from pseudolabel.pipelines.run.paths import RunPaths
from pseudolabel.pipelines.run.plan import Plan, PlanRequest, write_plan
from pseudolabel.sources.place import absolute, check_url, is_url


class PlanConfig(Config):
    """Options of `shard` that are fixed for a whole run."""

    images: str = option(..., "folder, s3://bucket/prefix, tar shards {000..099}.tar, or *.parquet with the images")
    annotations: Path | None = option(None, "COCO JSON, folder of VOC XML, or YOLO data.yaml; none = a bare folder")
    source: Literal["coco", "folder", "voc", "yolo"] | None = option(
        None, "format of the annotations; by default from what is given"
    )
    shards: int = option(8, "number of shards; a shard is the unit of work and of resuming", ge=1, le=100_000)
    exif: Literal["transpose", "ignore"] = option(
        "transpose", "turn pictures as a viewer shows them, or take the stored pixels"
    )

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


def make_plan(run: RunPaths, config: PlanConfig) -> Plan:
    """Read the input and freeze the plan; the same input again is no work.

    Raises:
        InputError: the folder or the annotations are missing or damaged.
        StaleOutputError: the run folder has another plan.
    """
    from pseudolabel.datasets import detect_format, open_dataset

    root = absolute(config.images)
    if not is_url(root):
        _refuse_run_inside_images(run, Path(config.images))
    kind = config.source or detect_format(config.annotations)
    dataset = open_dataset(kind, images=root, annotations=config.annotations, exif=config.exif)
    request = PlanRequest(
        images_root=root,
        source=f"{kind}:{config.annotations or config.images}",
        num_shards=config.shards,
        exif=config.exif,
        categories=dataset.categories,
        info=dataset.info,
        licenses=dataset.licenses,
    )
    return write_plan(run, request, dataset.rows())


def _refuse_run_inside_images(run: RunPaths, images: Path) -> None:
    if run.root.resolve().is_relative_to(images.resolve()):
        raise ConfigError(f"the run folder {run.root} lies inside the image folder {images}; choose another place")
