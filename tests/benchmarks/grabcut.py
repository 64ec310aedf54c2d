"""GrabCut of given boxes, the classical baseline of BoxInst's table 5, on photographs and on nuclei.

OpenCV's implementation, begun from the box as its rectangle, with five rounds: what lies outside the box is background,
and the rest is told by two mixtures of Gaussians and a graph cut. It sees the box widened by half a side, which keeps
the time per object small and the background near. Where nothing of a box is left, the box is the mask, and counted.
OpenCV comes with `[dev]`.

    python tests/benchmarks/grabcut.py --out docs/results/grabcut.json
"""

import time
from typing import Any

import cv2
import numpy as np
from fusion_ablation import CASES
from harness import report, script_parser, shared_folder

from pseudolabel.datasets.coco_file import read_coco
from pseudolabel.fusion.grid import object_window
from pseudolabel.images import load_image
from pseudolabel.masks import PixelMask, pixel_window
from pseudolabel.metrics.comparison import compare
from pseudolabel.metrics.mask_iou import box_mask
from pseudolabel.metrics.objects import Prediction, TrueObject, read_truth
from pseudolabel.pixel_rule import PixelRule
from pseudolabel.rle import encode_crop

SETS = {
    "coco-dev": ("coco-dev", "instances.json", ("all", "voc32")),
    "nuclei-dev": ("nuclei-dev", "instances_val.json", ("all",)),
}
ROUNDS = 5
ROOM = 0.5  # of the box's sides, on each of them
LEAST_PX = 2  # of either side of the box, for two mixtures to be learned


def grabcut(image: np.ndarray, box_xyxy: tuple[float, float, float, float]) -> PixelMask | None:
    """The mask that GrabCut finds in a box of an RGB image; None where nothing of the box is left."""
    x1, y1, x2, y2 = box_xyxy
    right, down = ROOM * (x2 - x1), ROOM * (y2 - y1)
    size_hw = (image.shape[0], image.shape[1])
    around = pixel_window((x1 - right, y1 - down, x2 + right, y2 + down), size_hw)
    box = object_window(box_xyxy, size_hw)
    top, left = int(around.y0), int(around.x0)
    crop = np.ascontiguousarray(image[top : top + around.height, left : left + around.width, ::-1])  # BGR
    labels = np.full(crop.shape[:2], cv2.GC_BGD, dtype=np.uint8)
    rows = slice(int(box.y0) - top, int(box.y0) - top + box.height)
    columns = slice(int(box.x0) - left, int(box.x0) - left + box.width)
    labels[rows, columns] = cv2.GC_PR_FGD
    if min(box.height, box.width) < LEAST_PX or (labels == cv2.GC_PR_FGD).all():
        return None  # too small, or a box as large as the image: there is no background to learn
    cv2.setRNGSeed(0)
    cv2.grabCut(crop, labels, None, np.zeros((1, 65)), np.zeros((1, 65)), ROUNDS, cv2.GC_INIT_WITH_MASK)
    found = np.isin(labels[rows, columns], (cv2.GC_FGD, cv2.GC_PR_FGD))
    return PixelMask(int(box.x0), int(box.y0), found) if found.any() else None


def prediction(image: np.ndarray, target: TrueObject) -> tuple[Prediction, bool]:
    """An object's mask, and whether it is GrabCut's own."""
    x, y, width, height = target.box_xywh
    size_hw = (image.shape[0], image.shape[1])
    found = grabcut(image, (x, y, x + width, y + height))
    mask = box_mask(target.box_xywh, size_hw) if found is None else encode_crop(found, size_hw)
    row = Prediction(target.annotation_id, target.image_id, target.category_id, mask, 1.0, target.box_xywh)
    return row, found is not None


def rows_of(name: str, folder: str, file_name: str, cases: tuple[str, ...]) -> list[dict[str, Any]]:
    """GrabCut, the box and the ellipse of one set."""
    root = shared_folder() / "data" / folder
    content = read_coco(root / file_name)
    truth, names = read_truth(content), {row["id"]: row["file_name"] for row in content["images"]}
    images = {key: load_image(root / "images", one, rule=PixelRule("ignore")) for key, one in names.items()}
    start = time.process_time()
    made = [prediction(images[row.image_id], row) for row in truth.objects if not row.is_crowd]
    each_ms = 1000 * (time.process_time() - start) / len(made)
    own = sum(found for _, found in made) / len(made)
    result = []
    for case in cases:
        figures = compare(truth, [one for one, _ in made], CASES[case], by_id=True)
        rows = {"box": figures["baseline_box"], "ellipse": figures["baseline_ellipse"], "GrabCut": figures}
        for setting, values in rows.items():
            ious = {key: values[key] for key in ("mean_iou", "iou_over_50", "iou_over_75")}
            result.append({"set": name, "objects": case, "setting": setting, "n": figures["n"], **ious})
        result[-1] |= {"own_masks": own, "cpu_ms_each": each_ms}
    return result


def main() -> None:
    parser = script_parser(__doc__)
    parser.add_argument("--sets", default=",".join(SETS), help="separated by commas")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    rows = [row for name in arguments.sets.split(",") for row in rows_of(name, *SETS[name])]
    report("grabcut", rows, on=f"true boxes, OpenCV {cv2.__version__}, {ROUNDS} rounds from the box", seeds=[0])


if __name__ == "__main__":
    main()
