"""`label-tiff`: a picture per image whose pixels are numbers of objects, as Cellpose, StarDist and napari read it.

images/NAME and masks/NAME.tif belong together; 0 is background. Where masks overlap, the pixel is the
smaller object's. `masks/NAME.csv` has class, score and decision of each number. The files are TIFF of 16 bits, of 32
where an image has more than 65,535 objects.
"""

import csv
from pathlib import Path
from typing import ClassVar

import numpy as np
from jaxtyping import UInt32
from PIL import Image

from pseudolabel import rle
from pseudolabel.formats.profile import ExportImage, ExportObject, Profile


class LabelTiffProfile(Profile):
    """Two files per image."""

    lossless: ClassVar[bool] = False
    about_loss: ClassVar[str] = "pixels of a mask that a smaller one covers; crowds and boxes without a mask"

    def add(self, image: ExportImage) -> None:
        path = self._labels(image)
        path.parent.mkdir(parents=True, exist_ok=True)
        numbers = instance_numbers(image.masked, image.size_hw)
        if numbers.max(initial=0) <= np.iinfo(np.uint16).max:
            Image.fromarray(numbers.astype(np.uint16)).save(path, format="TIFF", compression="tiff_adobe_deflate")
        else:
            Image.fromarray(numbers.astype(np.int32)).save(path, format="TIFF", compression="tiff_adobe_deflate")
        with path.with_suffix(".csv").open("x", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["number", "annotation_id", "class", "score", "decision"])
            for number, one in enumerate(image.masked, 1):
                writer.writerow([number, one.id, one.category.name, one.score, one.attributes.get("decision", "")])

    def reread(self, image: ExportImage) -> list[rle.Rle | None]:
        with Image.open(self._labels(image)) as picture:
            numbers = np.asarray(picture)
        number_of = {id(one): number for number, one in enumerate(image.masked, 1)}
        return [rle.encode(numbers == number_of[id(one)]) if id(one) in number_of else None for one in image.objects]

    def next_step(self, out: Path) -> str:
        files = f"train_files=sorted(glob('{out}/images/*')), train_labels_files=sorted(glob('{out}/masks/*.tif'))"
        return f"cellpose.train.train_seg(model.net, {files}); StarDist and napari take the same two lists"

    def _labels(self, image: ExportImage) -> Path:
        return self.folder / "masks" / image.name.with_suffix(".tif")


def instance_numbers(objects: tuple[ExportObject, ...], size_hw: tuple[int, int]) -> UInt32[np.ndarray, "h w"]:
    """The number of the object at each pixel, from 1 in their order, 0 for none; of several the smallest has it."""
    crops = [(number, rle.decode_crop(one.mask)) for number, one in enumerate(objects, 1) if one.mask is not None]
    numbers: UInt32[np.ndarray, "h w"] = np.zeros(size_hw, dtype=np.uint32)
    for number, crop in sorted(crops, key=lambda pair: (-int(pair[1].pixels.sum()), pair[0])):
        height, width = crop.pixels.shape
        numbers[crop.y0 : crop.y0 + height, crop.x0 : crop.x0 + width][crop.pixels] = number
    return numbers
