"""`roboflow`: train/, valid/ and test/, each with its images and _annotations.coco.json, as RF-DETR trains on them."""

from pathlib import Path, PurePosixPath
from typing import ClassVar

from pseudolabel.formats.coco_folder import CocoProfile
from pseudolabel.formats.profile import ExportImage

_FOLDERS = {"train": "train", "val": "valid", "test": "test"}


class RoboflowProfile(CocoProfile):
    """A folder per split."""

    wants_val: ClassVar[bool] = True
    own_supercategory: ClassVar[bool] = True  # RF-DETR leaves out classes of which it is missing or `none`

    def json_path(self, split: str) -> Path:
        return self.folder / _FOLDERS[split] / "_annotations.coco.json"

    def image_path(self, image: ExportImage) -> PurePosixPath:
        return PurePosixPath(_FOLDERS[image.split]) / image.name

    def next_step(self, out: Path) -> str:
        return f"python -c \"from rfdetr import RFDETRSegPreview as M; M().train(dataset_dir='{out}', epochs=10)\""
