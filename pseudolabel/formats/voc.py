"""`voc`: Annotations/, JPEGImages/, SegmentationObject/, SegmentationClass/ and ImageSets/, as PASCAL VOC is laid out.

Pixels of SegmentationObject are numbers of objects in the order of the XML's, those of SegmentationClass are classes
from 1; of an image with more than 254 masks, and of a data set with more classes, the rest has no pixels.
"""

from pathlib import Path, PurePosixPath
from typing import ClassVar
from xml.etree import ElementTree as ET

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from pseudolabel import rle
from pseudolabel.files import write_text_atomically
from pseudolabel.formats.label_image import OVERLAPS, instance_numbers, masks_of_numbers
from pseudolabel.formats.profile import ExportImage, ExportObject, Profile

_MOST = 254  # 255 is VOC's "void"


class VocProfile(Profile):
    """An XML per image, and two pictures of 8 bits with VOC's colours."""

    takes_boxes: ClassVar[bool] = True
    one_owner: ClassVar[bool] = True
    about_loss: ClassVar[str] = f"{OVERLAPS}, and masks beyond 254 of an image; crowds, ids; fractions of boxes"

    def image_path(self, image: ExportImage) -> PurePosixPath:
        return PurePosixPath("JPEGImages") / image.name

    def add(self, image: ExportImage) -> None:
        drawn = image.masked[:_MOST]
        numbers = instance_numbers(drawn, image.size_hw).astype(np.uint8)
        places = np.array([0, *((one.category.place + 1) % 256 for one in drawn)], dtype=np.uint8)
        self._save("SegmentationObject", image, numbers)
        if len(self.about.categories) <= _MOST:
            self._save("SegmentationClass", image, places[numbers])
        path = self._path("Annotations", image, ".xml")
        ET.ElementTree(_xml(image)).write(path, encoding="utf-8")
        for kind in ("Main", "Segmentation"):
            path = self.folder / "ImageSets" / kind / f"{image.split}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("a", encoding="utf-8") as file:
                file.write(f"{image.name.with_suffix('')}\n")

    def close(self) -> None:
        names = ["background", *(one.name.replace(":", "_") for one in self.about.categories)]
        colors = voc_colors().tolist()
        lines = [f"{name}:{','.join(map(str, colors[place % 256]))}::" for place, name in enumerate(names)]
        text = "\n".join(["# label:color_rgb:parts:actions", *lines, ""])
        write_text_atomically(self.folder / "labelmap.txt", text)

    def reread(self, image: ExportImage) -> list[rle.Rle | None]:
        with Image.open(self._path("SegmentationObject", image, ".png")) as picture:
            return masks_of_numbers(np.asarray(picture), image.masked[:_MOST], image)

    def next_step(self, out: Path) -> str:
        return f"python -c \"from datumaro import Dataset; print(Dataset.import_from('{out}', 'voc'))\""

    def _path(self, kind: str, image: ExportImage, suffix: str) -> Path:
        path = self.folder / kind / image.name.with_suffix(suffix)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def _save(self, kind: str, image: ExportImage, numbers: UInt8[np.ndarray, "h w"]) -> None:
        picture = Image.fromarray(numbers)
        picture.putpalette(voc_colors().ravel().tolist())
        picture.save(self._path(kind, image, ".png"), format="PNG")


def voc_colors() -> UInt8[np.ndarray, "256 3"]:
    """VOC's colour of each number: its bits, from the lowest, are in turn the highest bits of red, green and blue."""
    number = np.arange(256)[:, None, None]
    level, channel = np.arange(8)[None, :, None], np.arange(3)[None, None, :]
    bits = number >> np.minimum(3 * level + channel, 30) & 1
    colors: UInt8[np.ndarray, "256 3"] = (bits << (7 - level)).sum(1).astype(np.uint8)
    return colors


def _xml(image: ExportImage) -> ET.Element:
    height, width = image.size_hw
    root = ET.Element("annotation")
    ET.SubElement(root, "folder").text = "JPEGImages"
    ET.SubElement(root, "filename").text = str(image.name)
    size = ET.SubElement(root, "size")
    for name, value in (("width", width), ("height", height), ("depth", 3)):
        ET.SubElement(size, name).text = str(value)
    ET.SubElement(root, "segmented").text = "1"
    for one in (*image.masked, *(one for one in image.objects if one.mask is None)):
        _object(root, one)
    return root


def _object(root: ET.Element, one: ExportObject) -> None:
    x, y, width, height = one.box_xywh
    node = ET.SubElement(root, "object")
    ET.SubElement(node, "name").text = one.category.name
    ET.SubElement(node, "difficult").text = "0"
    box = ET.SubElement(node, "bndbox")
    corners = {
        "xmin": np.floor(x) + 1,
        "ymin": np.floor(y) + 1,
        "xmax": np.ceil(x + width),
        "ymax": np.ceil(y + height),
    }
    for name, value in corners.items():  # pixels from 1, both ends inside
        ET.SubElement(box, name).text = str(int(value))
    attributes = ET.SubElement(node, "attributes")
    for name, known in one.attributes.items():
        attribute = ET.SubElement(attributes, "attribute")
        ET.SubElement(attribute, "name").text = str(name)
        ET.SubElement(attribute, "value").text = str(known)
