"""What a student found, as pictures and as rows of COCO's results form."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from torch import Tensor

from pseudolabel import rle
from pseudolabel.masks import PixelMask
from pseudolabel.metrics.objects import Prediction
from pseudolabel.report.overlay import DrawnObject, fitting_scale, overlay_picture
from pseudolabel.students.base import Instances

_LEAST_DRAWN = 0.3


def instances_picture(
    image: UInt8[np.ndarray, "h w 3"], found: Instances, names: Sequence[str], *, least_score: float = _LEAST_DRAWN
) -> UInt8[np.ndarray, "H W 3"]:
    """The image with every instance of at least that score; a large one is made smaller."""
    chosen = [place for place in range(len(found.scores)) if float(found.scores[place]) >= least_score]
    drawn = [
        DrawnObject(
            PixelMask(0, 0, found.masks[place].cpu().numpy()),
            f"{names[int(found.labels[place])]} {float(found.scores[place]):.2f}".strip(),
            box_xyxy=_corners(found.boxes[place]),
        )
        for place in chosen
    ]
    picture: UInt8[np.ndarray, "H W 3"] = overlay_picture(image, drawn, scale=fitting_scale(image.shape[:2], most=1))
    return picture


def _corners(box: Float[Tensor, "4"]) -> tuple[float, float, float, float]:
    x0, y0, x1, y1 = (float(value) for value in box)
    return (x0, y0, x1, y1)


def coco_rows(found: Instances, image_id: int, categories: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """The instances as rows of COCO's results form, best first; boxes are the student's own."""
    for box, label, score, mask in zip(found.boxes, found.labels, found.scores, found.masks, strict=True):
        x0, y0, x1, y1 = (round(float(value), 2) for value in box)
        yield {
            "image_id": image_id,
            "category_id": int(categories[int(label)]["id"]),
            "segmentation": dict(rle.encode(mask.cpu().numpy())),
            "bbox": [x0, y0, round(x1 - x0, 2), round(y1 - y0, 2)],
            "score": round(float(score), 6),
        }


def as_predictions(rows: Sequence[Mapping[str, Any]]) -> list[Prediction]:
    """Rows of COCO's results form as the metrics take them."""
    return [
        Prediction(
            number,
            row["image_id"],
            row["category_id"],
            row["segmentation"],
            float(row["score"]),
            tuple(row["bbox"]) if "bbox" in row else None,
        )
        for number, row in enumerate(rows, start=1)
    ]
