"""Readers: what a user has on disk, as rows of the manifest.

A reader never trusts what it reads. A file that cannot be understood as a whole is an `InputError`; one record or
annotation that cannot be used is a row with its reason, and the rest goes on. Readers do not open images (the YOLO
reader alone reads their headers, since its boxes are fractions of the picture); the `shard` stage does.
"""

from pathlib import Path

from pseudolabel.datasets.base import Dataset as Dataset
from pseudolabel.errors import InputError
from pseudolabel.images import ExifRule
from pseudolabel.registry import Registry
from pseudolabel.sources import ImageSource, ImagesRoot, open_source
from pseudolabel.sources.folder import Folder

READERS = Registry(
    "data set format",
    {
        "coco": "pseudolabel.datasets.coco:CocoDataset",
        "folder": "pseudolabel.datasets.folder:FolderDataset",
        "voc": "pseudolabel.datasets.voc:VocDataset",
        "yolo": "pseudolabel.datasets.yolo:YoloDataset",
    },
)


def open_dataset(
    format: str, *, images: ImagesRoot, annotations: Path | None = None, exif: ExifRule = "transpose"
) -> Dataset:
    """The data set of a folder of images and what describes them.

    Args:
        format: a name in `READERS`, or "auto".
        images: folder, store or archives that file names are relative to; see `pseudolabel.sources`.
        annotations: COCO's JSON file, VOC's folder of XML files, YOLO's data.yaml, list of names or folder of labels,
            or None for images without boxes.
        exif: the rule by which pictures are read; boxes are relative to the picture that it gives.

    Raises:
        ConfigError: no such format.
        InputError: something is missing or cannot be understood as a whole; the message names file and place.
    """
    source = open_source(images)
    source.check()
    if annotations is not None and not annotations.exists():
        raise InputError(f"{annotations}: no such file or folder")
    name = detect_format(annotations) if format == "auto" else format
    if isinstance(source, Folder):
        folder_dataset: Dataset = READERS.load(name)(Path(images), annotations, exif=exif)
        return folder_dataset
    return _of_source(name, source, images, annotations, exif)


def _of_source(name: str, source: ImageSource, images: ImagesRoot, annotations: Path | None, exif: ExifRule) -> Dataset:
    """The data set of images that lie elsewhere than in a folder; readers that want the folder itself cannot be had."""
    from pseudolabel.datasets.elsewhere import LocatedDataset, SourceDataset

    if name == "folder":
        return SourceDataset(source, annotations)
    if name == "yolo":
        raise InputError(f"{images}: YOLO labels need their images in a local folder; COCO and VOC do not")
    dataset: Dataset = READERS.load(name)(Path(), annotations, exif=exif)
    return LocatedDataset(dataset, source)


def detect_format(annotations: Path | None) -> str:
    """The reader for a path, by what lies there.

    Raises:
        InputError: it is none of those that readers know.
    """
    if annotations is None:
        return "folder"
    if annotations.is_dir():
        return "voc" if any(annotations.glob("*.xml")) else "yolo"
    formats = {".json": "coco", ".xml": "voc", ".yaml": "yolo", ".yml": "yolo", ".names": "yolo", ".txt": "yolo"}
    if annotations.suffix.lower() not in formats:
        raise InputError(f"{annotations}: not known as annotations; say what it is: {', '.join(READERS)}")
    return formats[annotations.suffix.lower()]
