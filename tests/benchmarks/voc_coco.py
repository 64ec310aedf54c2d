"""A split of Pascal VOC 2012 as a COCO file: boxes out of the XML files, masks out of `SegmentationObject`.

An object of an XML file is the value of its place, from 1, in the picture of its image; 255 is the rim that counts for
nobody. Objects of images without such a picture, as those that SBD adds to the training set, have a box alone. Ids of
categories are VOC's own, in alphabetical order from 1. What is done with the files is in docs/recipes/voc.md.

    python tests/benchmarks/voc_coco.py VOCdevkit/VOC2012 --split train --out voc_train.json
    python tests/benchmarks/voc_coco.py VOCdevkit/VOC2012 --split val --out voc_val.json --images-to voc_val
"""

import argparse
import json
import shutil
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pseudolabel.rle import encode
from pseudolabel.segmenters.class_map import load_classes

CLASSES = load_classes("voc").names[1:]  # without the background
Row = dict[str, Any]


def coco_of(root: Path, split: str) -> Row:
    """The COCO file of a split.

    Raises:
        SystemExit: a list, an XML file or a class is not where or what it should be; or a mask that has no object.
    """
    images, annotations = [], []
    for number, name in enumerate(names_of(root, split), start=1):
        image, objects = image_of(root, name)
        images.append({"id": number, **image})
        annotations += [
            {"image_id": number, "id": len(annotations) + place, **one} for place, one in enumerate(objects, 1)
        ]
    categories = [{"id": place, "name": name} for place, name in enumerate(CLASSES, start=1)]
    return {"images": images, "annotations": annotations, "categories": categories}


def names_of(root: Path, split: str) -> list[str]:
    """The images of `ImageSets/Segmentation/SPLIT.txt`, without suffix."""
    path = root / "ImageSets" / "Segmentation" / f"{split}.txt"
    if not path.is_file():
        raise SystemExit(f"{path}: no such list; ROOT is the folder VOC2012 of the devkit")
    return path.read_text(encoding="utf-8").split()


def image_of(root: Path, name: str) -> tuple[Row, list[Row]]:
    """An image's entry, and its objects' without ids."""
    path = root / "Annotations" / f"{name}.xml"
    if not path.is_file():
        raise SystemExit(f"{path}: no such file, and {name} is in the list")
    sheet = ET.parse(path).getroot()
    width, height = (int(sheet.findtext(f"size/{side}") or 0) for side in ("width", "height"))
    masks = root / "SegmentationObject" / f"{name}.png"
    numbers = np.asarray(Image.open(masks)) if masks.is_file() else None
    objects = [_object(element, name) for element in sheet.iterfind("object")]
    if numbers is not None:
        _add_masks(objects, numbers, name)
    return {"file_name": f"{name}.jpg", "width": width, "height": height}, objects


def _object(element: ET.Element, name: str) -> Row:
    label = (element.findtext("name") or "").strip()
    if label not in CLASSES:
        raise SystemExit(f"{name}: {label!r} is none of VOC's classes")
    left, top, right, bottom = (
        float(element.findtext(f"bndbox/{side}") or 0) for side in ("xmin", "ymin", "xmax", "ymax")
    )
    box = [left - 1, top - 1, right - left + 1, bottom - top + 1]
    return {"category_id": CLASSES.index(label) + 1, "bbox": box, "area": box[2] * box[3], "iscrowd": 0}


def _add_masks(objects: Sequence[Row], numbers: np.ndarray, name: str) -> None:
    """Masks and their areas, in place; an object that the picture does not show keeps its box alone."""
    found = sorted({int(value) for value in np.unique(numbers)} - {0, 255})
    if found and found[-1] > len(objects):
        raise SystemExit(f"{name}: SegmentationObject has an object {found[-1]}, the XML file {len(objects)}")
    for number in found:
        mask = numbers == number
        objects[number - 1] |= {"segmentation": dict(encode(mask)), "area": int(mask.sum())}


def copy_images(root: Path, content: Row, folder: Path) -> None:
    """The images of a COCO file of `coco_of` in a folder of their own."""
    folder.mkdir(parents=True, exist_ok=True)
    for row in content["images"]:
        shutil.copyfile(root / "JPEGImages" / row["file_name"], folder / row["file_name"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path, help="the folder VOC2012 of the devkit")
    parser.add_argument(
        "--split", default="val", help="a list of ImageSets/Segmentation: train, val, trainval, trainaug"
    )
    parser.add_argument("--out", type=Path, required=True, help="the COCO file to write")
    parser.add_argument("--images-to", type=Path, help="a folder for copies of the images, to detect objects on alone")
    arguments = parser.parse_args()
    content = coco_of(arguments.root, arguments.split)
    if arguments.images_to:
        copy_images(arguments.root, content, arguments.images_to)
    arguments.out.write_text(json.dumps(content), encoding="utf-8")
    masks = sum("segmentation" in one for one in content["annotations"])
    print(f"{arguments.out}: {len(content['images'])} images, {len(content['annotations'])} boxes, {masks} masks")


if __name__ == "__main__":
    main()
