"""What the consumers' checks share; needs numpy alone. Each check prints one JSON object."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

Row = dict[str, Any]
FOLDER = Path(sys.argv[1]) if len(sys.argv) > 1 else Path()


def truth() -> Iterator[Row]:
    """Images as they were exported: `name`, `split`, `size`, and `objects` with `class`, `crowd`, `mask`."""
    with (FOLDER / "truth.jsonl").open() as file:
        for line in file:
            image = json.loads(line)
            for one in image["objects"]:
                one["mask"] = painted(one["counts"], image["size"]) if one["counts"] else None
            yield image


def painted(counts: list[int], size_hw: list[int]) -> np.ndarray:
    """Run lengths by columns, background first, as a mask."""
    values = np.repeat(np.arange(len(counts)) % 2, counts).astype(bool)
    return values.reshape(size_hw[1], size_hw[0]).T


class Compared:
    """The IoU of each exported mask with the nearest mask of its class that a consumer has."""

    def __init__(self) -> None:
        self.ious: list[float] = []
        self.found = 0

    def add(self, image: Row, found: list[tuple[str, np.ndarray]], *, crowds: bool = False) -> None:
        """`found` are class and full-image mask of all that the consumer has on the image."""
        self.found += len(found)
        for one in image["objects"]:
            if one["mask"] is None or (one["crowd"] and not crowds):
                continue
            near = [_iou(one["mask"], mask) for name, mask in found if name == one["class"]]
            self.ious.append(max(near, default=0.0))

    def told(self, **more: Any) -> Row:
        """Figures for docs/export.md."""
        mean, worst = (float(np.mean(self.ious)), float(np.min(self.ious))) if self.ious else (0.0, 0.0)
        figures = {"masks": len(self.ious), "mean_iou": round(mean, 5), "worst_iou": round(worst, 4)}
        return {**figures, "objects_there": self.found, **more}


def report(**figures: Row) -> None:
    """Print figures by profile."""
    print(json.dumps(figures))


def _iou(one: np.ndarray, other: np.ndarray) -> float:
    return float((one & other).sum() / max((one | other).sum(), 1))
