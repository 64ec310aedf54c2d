"""datasets: `load_dataset` on the folder."""

import numpy as np
from common import FOLDER, Compared, report, truth
from datasets import load_dataset

data = load_dataset(str(FOLDER / "huggingface"), cache_dir=str(FOLDER / "huggingface-cache"))
rows = {row["image"].filename or str(number): row for number, row in enumerate(data["train"])}
result, sizes = Compared(), 0


def counts_of(text: str) -> list[int]:
    """COCO's string as run lengths: groups of five bits, from the fourth on differences to the last but one."""
    counts: list[int] = []
    value = shift = 0
    for sign in text.encode():
        value |= ((sign - 48) & 31) << shift
        shift += 5
        if not (sign - 48) & 32:
            value -= (1 << shift) if (sign - 48) & 16 else 0
            counts.append(value + (counts[-2] if len(counts) > 2 else 0))
            value = shift = 0
    return counts


def painted(cell: dict[str, object]) -> np.ndarray:
    counts = counts_of(str(cell["counts"]))
    height, width = cell["size"]  # type: ignore[misc]
    return np.repeat(np.arange(len(counts)) % 2, counts).astype(bool).reshape(width, height).T


category = data["train"].features["objects"]["category"].feature
for image, row in zip(truth(), data["train"], strict=True):
    objects = row["objects"]
    masks = [painted(cell) if cell and cell["counts"] else None for cell in objects["segmentation"]]
    named = [(category.int2str(number), mask) for number, mask in zip(objects["category"], masks, strict=True)]
    result.add(image, [(name, mask) for name, mask in named if mask is not None], crowds=True)
    sizes += row["image"].size == (row["width"], row["height"])
report(huggingface=result.told(images_opened=sizes, classes=category.num_classes))
