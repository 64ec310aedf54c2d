"""Speed of the RLE codec on the true masks of real photographs, against pycocotools on full-image masks.

Reference: pycocotools, from and to full-image masks as they lie in memory elsewhere, row by row. Ours: from and to the
crop of the object, which is what the stages hold; `full` rows are ours on full-image masks. One thread, CPU time, in
turns; every string is compared byte for byte, every mask pixel for pixel.
"""

import json
from typing import Any

import numpy as np
from harness import interleaved, report, script_parser, shared_folder
from pycocotools import mask as coco_mask

from pseudolabel import rle

SETS = {"coco-dev": "coco-dev/instances.json", "nuclei-dev": "nuclei-dev/instances_val.json"}
REPEATS = 7


def true_masks(name: str) -> list[rle.Rle]:
    """The set's masks, polygons painted."""
    content = json.loads((shared_folder() / "data" / name).read_text())
    sizes = {image["id"]: (image["height"], image["width"]) for image in content["images"]}
    return [rle.from_segmentation(a["segmentation"], sizes[a["image_id"]]) for a in content["annotations"]]


def reference_encode(mask: np.ndarray) -> str:
    return str(coco_mask.encode(np.asfortranarray(mask))["counts"].decode())


def reference_decode(encoded: rle.Rle) -> np.ndarray:
    return np.ascontiguousarray(coco_mask.decode(encoded))


def rows_of(name: str, path: str) -> list[dict[str, Any]]:
    encoded = true_masks(path)
    full = [reference_decode(item) for item in encoded]
    boolean = [mask.view(np.bool_) for mask in full]
    crops = [rle.decode_crop(item) for item in encoded]
    sizes = [(item["size"][0], item["size"][1]) for item in encoded]
    pairs = list(zip(crops, sizes, strict=True))
    strings = [reference_encode(mask) for mask in full]
    wrong_crop = sum(rle.encode_crop(c, s)["counts"] != t for (c, s), t in zip(pairs, strings, strict=True))
    wrong_full = sum(rle.encode(mask)["counts"] != text for mask, text in zip(boolean, strings, strict=True))
    wrong_masks = sum(int((rle.decode(item) != mask).sum()) for item, mask in zip(encoded, full, strict=True))
    wrong_cuts = sum(_differs(crop, mask) for crop, mask in zip(crops, full, strict=True))
    seconds = interleaved(
        {
            "encode reference": lambda: [reference_encode(mask) for mask in full],
            "encode crop": lambda: [rle.encode_crop(crop, size_hw) for crop, size_hw in pairs],
            "encode full": lambda: [rle.encode(mask) for mask in boolean],
            "decode reference": lambda: [reference_decode(item) for item in encoded],
            "decode crop": lambda: [rle.decode_crop(item) for item in encoded],
            "decode full": lambda: [rle.decode(item) for item in encoded],
        },
        REPEATS,
    )
    differences = {"encode crop": wrong_crop, "encode full": wrong_full, "decode crop": wrong_cuts,
                   "decode full": wrong_masks}  # fmt: skip
    return [_row(name, case, seconds, difference, len(encoded)) for case, difference in differences.items()]


def _differs(crop: Any, mask: np.ndarray) -> int:
    """Pixels of the full mask that the crop gets wrong, those outside it included."""
    there = mask[crop.y0 : crop.y0 + crop.pixels.shape[0], crop.x0 : crop.x0 + crop.pixels.shape[1]]
    return int((there != crop.pixels).sum() + mask.sum() - there.sum())


def _row(name: str, case: str, seconds: dict[str, float], difference: int, count: int) -> dict[str, Any]:
    reference_s = seconds[case.split()[0] + " reference"]
    return {
        "case": f"{name} {case}",
        "reference_s": reference_s,
        "ours_s": seconds[case],
        "ratio": reference_s / seconds[case],
        "max_abs_diff": difference,
        "masks": count,
        "ours_masks_per_s": count / seconds[case],
    }


if __name__ == "__main__":
    script_parser(__doc__).parse_args()
    rows = [row for name, path in SETS.items() for row in rows_of(name, path)]
    report("rle", rows, on="the true masks of coco-dev and of nuclei-dev's validation part")
