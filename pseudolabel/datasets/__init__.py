"""Readers: what a user has on disk, as rows of the manifest.

A reader never trusts what it reads. A file that cannot be understood as a whole is an `InputError`; one record or
annotation that cannot be used is a row with its reason, and the rest goes on. Readers do not open images (those whose
boxes are fractions of the picture read their headers); the `shard` stage does.
"""

from pathlib import Path

from pseudolabel.datasets.base import Dataset as Dataset
from pseudolabel.datasets.detect import detect_format
from pseudolabel.datasets.options import ReadOptions
from pseudolabel.errors import ConfigError, InputError
from pseudolabel.registry import Registry, no_such_file
from pseudolabel.sources import ImageSource, ImagesRoot, open_source
from pseudolabel.sources.folder import Folder

READERS = Registry(
    "data set format",
    {
        "coco": "pseudolabel.datasets.coco:CocoDataset",
        "cvat": "pseudolabel.datasets.cvat:CvatDataset",
        "folder": "pseudolabel.datasets.folder:FolderDataset",
        "label-studio": "pseudolabel.datasets.label_studio:LabelStudioDataset",
        "labelme": "pseudolabel.datasets.labelme:LabelmeDataset",
        "voc": "pseudolabel.datasets.voc:VocDataset",
        "yolo": "pseudolabel.datasets.yolo:YoloDataset",
    },
)


def open_dataset(
    format: str, *, images: ImagesRoot, annotations: Path | None = None, options: ReadOptions = ReadOptions()
) -> Dataset:
    """The data set of a folder of images and what describes them.

    Args:
        format: a name in `READERS`, or "auto".
        images: folder, store or archives that file names are relative to; see `pseudolabel.sources`.
        annotations: what `docs/formats.md` lists, or None for images without boxes, or with boxes beside them in
            Parquet files.
        options: how they are read.

    Raises:
        ConfigError: no such format, or an option that has no effect on it.
        InputError: something is missing or cannot be understood as a whole; the message names file and place.
    """
    source = open_source(images)
    source.check()
    if annotations is not None and not annotations.exists():
        raise InputError(no_such_file(annotations, "file or folder"))
    name = detect_format(annotations, has_images_json=options.images_json is not None) if format == "auto" else format
    if options.images_json is not None and name != "coco":
        raise ConfigError(f"--images-json belongs to a list of boxes in COCO's form, not to {name}")
    if isinstance(source, Folder):
        folder_dataset: Dataset = READERS.load(name)(Path(images), annotations, options)
        return folder_dataset
    return _of_source(name, source, annotations, options)


def _of_source(name: str, source: ImageSource, annotations: Path | None, options: ReadOptions) -> Dataset:
    """The data set of images that lie elsewhere than in a folder."""
    from pseudolabel.datasets.elsewhere import LocatedDataset, SourceDataset
    from pseudolabel.datasets.parquet_objects import ParquetObjects, object_column
    from pseudolabel.sources.parquet import ParquetImages

    if name == "folder":
        if isinstance(source, ParquetImages) and annotations is None and object_column(source.schema()):
            return ParquetObjects(source, options)
        return SourceDataset(source, annotations)
    dataset: Dataset = READERS.load(name)(None, annotations, options)
    return LocatedDataset(dataset, source)
