"""COCO contents and objects for the tests of the figures, built by hand."""

from typing import Any

import numpy as np
from pycocotools import mask as codec


def rectangle(x: int, y: int, width: int, height: int, size_hw: tuple[int, int] = (100, 120)) -> dict[str, Any]:
    """The RLE of a filled rectangle."""
    mask = np.zeros(size_hw, np.uint8)
    mask[y : y + height, x : x + width] = 1
    rle = codec.encode(np.asfortranarray(mask))
    return {"size": list(size_hw), "counts": rle["counts"].decode("ascii")}


def coco(annotations: list[dict[str, Any]], images: int = 2, size_hw: tuple[int, int] = (100, 120)) -> dict[str, Any]:
    rows = [
        {"id": n + 1, "file_name": f"{n + 1}.jpg", "height": size_hw[0], "width": size_hw[1]} for n in range(images)
    ]
    names = [{"id": 1, "name": "cat"}, {"id": 5, "name": "dog"}]
    return {"info": {}, "images": rows, "annotations": annotations, "categories": names}


def annotation(key: int, box: tuple[int, int, int, int], **more: Any) -> dict[str, Any]:
    area = box[2] * box[3]
    row = {"id": key, "image_id": 1, "category_id": 1, "segmentation": rectangle(*box), "bbox": list(box), "iscrowd": 0}
    return {**row, "area": area, **more}
