"""Options of `shard`: those that are fixed for a whole run, and those of the stage that opens every image."""

from pathlib import Path
from typing import Literal

from pydantic import field_validator

from pseudolabel.config import Config, ConfigT, option
from pseudolabel.pipelines.options.base import StageConfig
from pseudolabel.sources.place import check_url, is_url


class PlanConfig(Config):
    """Options of `shard` that are fixed for a whole run."""

    images: str = option(
        ..., "folder, s3://bucket/prefix, tar shards {000..099}.tar, or *.parquet with the images", group="main"
    )
    annotations: Path | None = option(
        None, "what is known of the images: COCO JSON, folder of VOC XML, or YOLO data.yaml; none = a bare folder",
        group="main",
    )  # fmt: skip
    source: str | None = option(
        None, "format of the annotations, such as coco, voc or yolo; by default from what is given"
    )
    shards: int = option(
        8, "number of shards; a shard is the unit of work and of resuming", group="main", ge=1, le=100_000
    )
    exif: Literal["transpose", "ignore"] = option(
        "transpose", "a rotation in the file: turn pictures as a viewer shows them, or take the stored pixels",
        group="main",
    )  # fmt: skip

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


class ShardConfig(StageConfig):
    """Limits on what is opened. The rest of `shard`'s options belong to the plan."""

    max_pixels: int = option(120_000_000, "larger pictures are refused before they are decoded", ge=1, le=178_956_970)
    max_bytes: int = option(256 << 20, "larger image files are refused before they are read", ge=1, le=1 << 30)


class ShardOptions(ShardConfig, PlanConfig):
    """All options of `shard`; each part reads its own."""

    def part(self, config_class: type[ConfigT]) -> ConfigT:
        """The options of one part."""
        return config_class.model_validate({name: getattr(self, name) for name in config_class.model_fields})
