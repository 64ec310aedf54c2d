"""A run of drawn discs with two sources of masks, and hostile names all over it."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from pseudolabel.pipelines.api import Run
from pseudolabel.pipelines.tools.add_candidates import write_candidates

SIZE_HW = (160, 240)
IMAGES = ("a.png", "b'\"<img src=x onerror=alert(1)>.png", "c d&e.png", *(f"{number}.png" for number in range(7)))
CLASSES = ("</script><script>window.hit=1</script>", "<img src=http://example.com/x onerror=window.hit=2>")
PER_IMAGE = 6


def disc(center: tuple[float, float], radius: float) -> np.ndarray:
    rows, columns = np.mgrid[: SIZE_HW[0], : SIZE_HW[1]] + 0.5
    return np.asarray((columns - center[0]) ** 2 + (rows - center[1]) ** 2 <= radius**2)


def place(number: int) -> tuple[float, float, float]:
    """Centre and radius of the disc of an annotation id from 1 on."""
    own = (number - 1) % PER_IMAGE
    return (40.0 + 80 * (own % 3), 40.0 + 80 * (own // 3), 18.0 + own)


def make_run(tmp_path: Path) -> Run:
    """60 discs on ten images; `good` has them whole, `poor` a third of each."""
    images, annotations, good, poor = [], [], {}, {}
    (tmp_path / "images").mkdir()
    for image_id, name in enumerate(IMAGES, 1):
        pixels = np.full((*SIZE_HW, 3), 90, dtype=np.uint8)
        for own in range(PER_IMAGE):
            number = (image_id - 1) * PER_IMAGE + own + 1
            x, y, radius = place(number)
            mask = disc((x, y), radius)
            pixels[mask] = (200, 60 + 20 * own, 40)
            box = [x - radius, y - radius, 2 * radius, 2 * radius]
            annotations.append(
                {"id": number, "image_id": image_id, "category_id": 1 + own % 2, "bbox": box, "iscrowd": 0, "area": 1}
            )
            good[number] = mask
            poor[number] = mask & (np.mgrid[: SIZE_HW[0], : SIZE_HW[1]][1] < x - radius / 3)
        Image.fromarray(pixels).save(tmp_path / "images" / name)
        images.append({"id": image_id, "file_name": name, "width": SIZE_HW[1], "height": SIZE_HW[0]})
    categories = [{"id": number, "name": name} for number, name in enumerate(CLASSES, 1)]
    boxes = tmp_path / "boxes.json"
    boxes.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    run = Run.create(tmp_path / "run", images=tmp_path / "images", boxes=boxes, shards=2)
    write_candidates(run.paths, "good", good)
    write_candidates(run.paths, "poor", poor)
    run.step("fuse", refine="none", engine="inline")
    return run
