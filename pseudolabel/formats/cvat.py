"""`cvat`: a zip of CVAT's "COCO 1.0" with masks and attributes, and labels.json, the labels for the task's constructor.

CVAT takes those attributes that a task's labels declare; labels.json declares score and decision.
"""

import json
import shutil
import zipfile
from pathlib import Path, PurePosixPath
from typing import IO, ClassVar

from pseudolabel import rle
from pseudolabel.files import write_text_atomically
from pseudolabel.formats.coco_part import CocoPart
from pseudolabel.formats.profile import About, ExportImage, ExportOptions, Profile

_JSON = "annotations/instances_default.json"
_ATTRIBUTES = (
    {"name": "score", "mutable": False, "input_type": "text", "default_value": "", "values": [""]},
    {
        "name": "decision",
        "mutable": False,
        "input_type": "select",
        "default_value": "keep",
        "values": ["keep", "review", "box_only", "ignore"],
    },
)


class CvatProfile(Profile):
    """One zip."""

    takes_boxes: ClassVar[bool] = True
    takes_crowds: ClassVar[bool] = True
    about_loss: ClassVar[str] = "the split; attributes that the task's labels do not declare"

    def __init__(self, folder: Path, about: About, options: ExportOptions) -> None:
        super().__init__(folder, about, options)
        self._zip_path = folder / "cvat.zip"
        self._zip = zipfile.ZipFile(self._zip_path, "x")
        self._part = CocoPart(folder / "instances_default.json", about, options)

    def image_path(self, image: ExportImage) -> PurePosixPath | None:
        return None

    def add(self, image: ExportImage) -> None:
        bare = self.options.images == "none"
        self._part.add(image, image.file_name if bare else str(image.name))
        if not bare:
            self._zip.writestr(zipfile.ZipInfo(f"images/{image.name}"), image.load())

    def close(self) -> None:
        self._part.close()
        entry = zipfile.ZipInfo(_JSON)
        entry.compress_type = zipfile.ZIP_DEFLATED
        with self._part.path.open("rb") as source, self._zip.open(entry, "w", force_zip64=True) as sink:
            shutil.copyfileobj(source, sink)
        self._zip.close()
        self._part.path.unlink()
        self._part.open_again = self._open_json
        labels = [{"name": one.name, "attributes": _ATTRIBUTES} for one in self.about.categories]
        write_text_atomically(self.folder / "labels.json", json.dumps(labels, indent=1, ensure_ascii=False))

    def reread(self, image: ExportImage) -> list[rle.Rle | None]:
        return self._part.reread(image)

    def next_step(self, out: Path) -> str:
        return (
            f"cvat-cli task create mine --labels {out / 'labels.json'} local IMAGES "
            f'--annotation_path {out / "cvat.zip"} --annotation_format "COCO 1.0"'
        )

    def _open_json(self) -> IO[bytes]:
        return zipfile.ZipFile(self._zip_path).open(_JSON)
