"""The protocol of docs/recipes/ade20k.md, on a miniature in the set's layout: true semantic masks in, AP out."""

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from pseudolabel.cli.main import main
from pseudolabel.rle import encode
from pseudolabel.segmenters.class_map import load_classes

ADE = load_classes("ade20k").names
TABLE = ADE.index("table") + 1  # 0 in the label maps is nothing


@pytest.fixture
def ade(tmp_path: Path) -> Path:
    """Two images with two tables each, apart from each other, and the instances' COCO file."""
    root = tmp_path / "ADEChallengeData2016"
    images, labels = root / "images" / "validation", root / "annotations" / "validation"
    images.mkdir(parents=True)
    labels.mkdir(parents=True)
    truth = {"images": [], "annotations": [], "categories": [{"id": 7, "name": "table"}]}
    for number in (1, 2):
        pixels, label = np.full((96, 96, 3), 120, dtype=np.uint8), np.zeros((96, 96), dtype=np.uint8)
        truth["images"].append({"id": number, "file_name": f"ADE_val_{number}.jpg", "width": 96, "height": 96})
        for place, (top, left) in enumerate(((8, 8), (52, 56))):
            window = (slice(top, top + 28), slice(left, left + 32))
            pixels[window], label[window] = (200, 60, 60), TABLE
            mask = np.zeros((96, 96), dtype=bool)
            mask[window] = True
            box = {"bbox": [left, top, 32, 28], "area": 32 * 28, "iscrowd": 0, "segmentation": dict(encode(mask))}
            truth["annotations"].append({"id": 2 * number + place, "image_id": number, "category_id": 7, **box})
        Image.fromarray(pixels).save(images / f"ADE_val_{number}.jpg")
        Image.fromarray(label).save(labels / f"ADE_val_{number}.png")
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    return root


def test_the_recipe_gives_an_ap_behind_true_semantic_masks(ade: Path, tmp_path: Path) -> None:
    run = tmp_path / "ade"
    tiny = "--backbone tiny --backbone-weights none --head-width 64 --crop 96 --radius 5 --steps 1 --batch-size 2"
    for line in (
        f"shard {run} --images {ade / 'images' / 'validation'} --engine inline",
        f"infer-semantic {run} --model labels:{ade / 'annotations' / 'validation'} --label-format ade20k "
        "--engine inline",
        f"train-siseg {run} {tiny} --device cpu --threads 1",
        f"infer-siseg {run} --engine inline --device cpu",
        f"fuse {run} --engine inline",
        f"evaluate {run} --ground-truth {tmp_path / 'truth.json'} --json",
    ):
        result = CliRunner().invoke(main, line.split())
        assert result.exit_code == 0, f"{line}: {result.output} {result.exception}"
    figures = json.loads(result.stdout)
    assert figures["n"] == 4
    assert figures["class_right"] == 1
    assert 0 < figures["ap50"] <= 1
