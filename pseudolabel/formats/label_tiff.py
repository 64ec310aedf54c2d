"""`label-tiff`: a picture per image whose pixels are numbers of objects, as Cellpose, StarDist and napari read it.

images/NAME and masks/NAME.tif belong together; 0 is background. Where masks overlap, the pixel is the smaller object's.
masks/NAME.csv has class, score and decision of each number. The files are TIFF of 16 bits, of 32 where an image has
more than 65,535 objects.
"""

import csv
from pathlib import Path
from typing import ClassVar

import numpy as np
from PIL import Image

from pseudolabel import rle
from pseudolabel.formats.label_image import OVERLAPS, instance_numbers, masks_of_numbers
from pseudolabel.formats.profile import ExportImage, Profile


class LabelTiffProfile(Profile):
    """Two files per image."""

    one_owner: ClassVar[bool] = True
    about_loss: ClassVar[str] = f"{OVERLAPS}; crowds and boxes without a mask"

    def add(self, image: ExportImage) -> None:
        path = self._masks(image)
        path.parent.mkdir(parents=True, exist_ok=True)
        numbers = instance_numbers(image.masked, image.size_hw)
        narrow = len(image.masked) <= np.iinfo(np.uint16).max
        picture = Image.fromarray(numbers.astype(np.uint16 if narrow else np.int32))
        picture.save(path, format="TIFF", compression="tiff_adobe_deflate")
        with path.with_suffix(".csv").open("x", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["number", "annotation_id", "class", "score", "decision"])
            for number, one in enumerate(image.masked, 1):
                writer.writerow([number, one.id, one.category.name, one.score, one.attributes.get("decision", "")])

    def reread(self, image: ExportImage) -> list[rle.Rle | None]:
        with Image.open(self._masks(image)) as picture:
            return masks_of_numbers(np.asarray(picture), image.masked, image)

    def next_step(self, out: Path) -> str:
        files = f"train_files=sorted(glob('{out}/images/*')), train_labels_files=sorted(glob('{out}/masks/*.tif'))"
        return f"cellpose.train.train_seg(model.net, {files}); StarDist and napari take the same two lists"

    def _masks(self, image: ExportImage) -> Path:
        return self.folder / "masks" / image.name.with_suffix(".tif")
