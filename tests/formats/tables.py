"""Small tables of a run, built by hand."""

from typing import Any

import numpy as np
import pyarrow as pa
from pycocotools import mask as codec

from pseudolabel import records

CATEGORIES = [
    {"supercategory": "animal", "id": 3, "name": "cat"},
    {"supercategory": "animal", "id": 17, "name": "dog"},
]
HEADER = {"info": {"description": "by hand"}, "licenses": [{"id": 4, "name": "CC0"}], "categories": CATEGORIES}


def ring(size_hw: tuple[int, int]) -> np.ndarray:
    """A mask with a hole that touches the top left corner."""
    mask = np.zeros(size_hw, bool)
    mask[:9, :12] = True
    mask[3:6, 4:8] = False
    return mask


def pieces(size_hw: tuple[int, int]) -> np.ndarray:
    """A mask of two parts, the second touching the bottom right corner."""
    mask = np.zeros(size_hw, bool)
    mask[4:7, 3:9] = True
    mask[-5:, -4:] = True
    return mask


def image(key: str, image_id: int | None, size_hw: tuple[int, int], **more: Any) -> dict[str, Any]:
    row = {"image_key": key, "image_id": image_id, "file_name": key, "height": size_hw[0], "width": size_hw[1]}
    return {**row, "exif_orientation": 1, **records.ok("shard"), **more}


def label(key: str, annotation_id: int | None, category_id: int, mask: np.ndarray, **more: Any) -> dict[str, Any]:
    rle = codec.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {
        "image_key": key,
        "annotation_id": annotation_id,
        "category_id": category_id,
        "segmentation": {"size": list(mask.shape), "counts": rle["counts"].decode("ascii")},
        "bbox_xywh": codec.toBbox(rle).tolist(),
        "source_bbox_xywh": [0.5, 1.25, 20.0, 10.75],
        "area": int(mask.sum()),
        "iscrowd": False,
        "score": 0.9,
        "box_quality": 0.8,
        "pixel_quality": 0.7,
        "expected_iou": 0.8,
        "candidates_used": 3,
        "sources": ["semantic", "siseg"],
        "decision": "keep",
        "provenance_id": "abc",
        **records.ok("fuse"),
        **more,
    }


def tables(images: list[dict[str, Any]], labels: list[dict[str, Any]]) -> tuple[pa.Table, pa.Table]:
    return records.table_from_rows(images, records.MANIFEST), records.table_from_rows(labels, records.PSEUDO)


def two_shards() -> list[tuple[pa.Table, pa.Table]]:
    """Three images in two shards, the last without any object; one image and one annotation were rejected."""
    a, b, c = (30, 40), (25, 50), (20, 20)
    first = tables(
        [
            image("a/1.jpg", 7, a),
            {"image_key": "a/0.jpg", "annotation_id": 99, **records.rejected("shard", "bad_box")},
            {"image_key": "broken.jpg", "image_id": 8, **records.rejected("shard", "undecodable")},
        ],
        [
            label("a/1.jpg", 500, 17, ring(a)),
            label("a/1.jpg", 20, 3, pieces(a), score=0.25, decision="box_only", sources=[], box_quality=None),
            {"image_key": "broken.jpg", **records.rejected("fuse", "image_rejected")},
        ],
    )
    second = tables(
        [image("b ü.jpg", 1, b), image("empty.jpg", 12, c)],
        [
            label("b ü.jpg", 3, 3, pieces(b), score=0.5, calibrated_iou=0.625),
            {"image_key": "empty.jpg", **records.empty("fuse")},
        ],
    )
    return [first, second]
