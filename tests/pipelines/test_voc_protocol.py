"""The protocol of docs/recipes/voc.md, on a miniature in VOC's layout: files, training, detections, AP."""

import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from pseudolabel.cli.main import main
from pseudolabel.rle import decode

TINY = "--backbone tiny --backbone-weights none --image-px 64 --steps 1 --batch-size 2 --device cpu --threads 1"
OBJECT = "<object><name>{}</name><bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox></object>"


@pytest.fixture
def voc_coco(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
    import voc_coco

    return voc_coco


@pytest.fixture
def devkit(tmp_path: Path) -> Path:
    """Three images of 64 x 64 px with a dog and a chair each; two are for training, of which one has no masks."""
    root = tmp_path / "VOC2012"
    for folder in ("JPEGImages", "Annotations", "SegmentationObject", "ImageSets/Segmentation"):
        (root / folder).mkdir(parents=True)
    for number, name in enumerate(("2007_000001", "2007_000002", "2007_000003")):
        pixels = np.full((64, 64, 3), 120, dtype=np.uint8)
        numbers = np.zeros((64, 64), dtype=np.uint8)
        pixels[8:32, 8:28], pixels[36:60, 30:56] = (200, 60, 60), (60, 180, 80)
        numbers[8:32, 8:28], numbers[36:60, 30:56], numbers[32, 8:28] = 1, 2, 255
        Image.fromarray(pixels).save(root / "JPEGImages" / f"{name}.jpg")
        objects = OBJECT.format("dog", 9, 9, 28, 32) + OBJECT.format("chair", 31, 37, 56, 60)
        size = "<size><width>64</width><height>64</height><depth>3</depth></size>"
        (root / "Annotations" / f"{name}.xml").write_text(f"<annotation>{size}{objects}</annotation>")
        if number != 1:
            Image.fromarray(numbers).save(root / "SegmentationObject" / f"{name}.png")
    lists = root / "ImageSets" / "Segmentation"
    (lists / "train.txt").write_text("2007_000001\n2007_000002\n")
    (lists / "val.txt").write_text("2007_000003\n")
    return root


def test_a_split_has_vocs_boxes_its_masks_and_its_class_ids(voc_coco: ModuleType, devkit: Path) -> None:
    content = voc_coco.coco_of(devkit, "train")
    assert [row["file_name"] for row in content["images"]] == ["2007_000001.jpg", "2007_000002.jpg"]
    assert [(row["id"], row["image_id"]) for row in content["annotations"]] == [(1, 1), (2, 1), (3, 2), (4, 2)]
    dog, chair, bare, _ = content["annotations"]
    names = {row["id"]: row["name"] for row in content["categories"]}
    assert (names[dog["category_id"]], dog["category_id"], names[chair["category_id"]]) == ("dog", 12, "chair")
    assert dog["bbox"] == [8, 8, 20, 24]
    mask = np.zeros((64, 64), dtype=bool)
    mask[8:32, 8:28] = True
    assert np.array_equal(decode(dog["segmentation"]), mask)
    assert dog["area"] == 480
    assert "segmentation" not in bare


def test_a_mask_without_an_object_ends_the_script(voc_coco: ModuleType, devkit: Path) -> None:
    Image.fromarray(np.full((64, 64), 3, dtype=np.uint8)).save(devkit / "SegmentationObject" / "2007_000003.png")
    with pytest.raises(SystemExit, match="has an object 3, the XML file 2"):
        voc_coco.coco_of(devkit, "val")


def test_the_recipe_gives_an_ap_on_val(voc_coco: ModuleType, devkit: Path, tmp_path: Path) -> None:
    train, val = (tmp_path / f"{name}.json" for name in ("train", "val"))
    train.write_text(json.dumps(voc_coco.coco_of(devkit, "train")))
    truth = voc_coco.coco_of(devkit, "val")
    val.write_text(json.dumps(truth))
    voc_coco.copy_images(devkit, truth, tmp_path / "images")
    run, found = tmp_path / "voc", tmp_path / "found"
    for line in (
        f"shard {run} --images {devkit / 'JPEGImages'} --annotations {train} --engine inline",
        f"train-teacher {run} --method boxseg --channels 16 --convs 1 --mask-branch-channels 16 {TINY}",
        f"infer-teacher {run} --engine inline --device cpu",
        f"fuse {run} --engine inline",
        f"train-student {run} --model condinst --width 40 --convs 1 {TINY}",
        f"predict {run}/models/student.safetensors --images {tmp_path / 'images'} --ground-truth {val} --out {found} "
        "--least-score 0 --device cpu --json",
    ):
        result = CliRunner().invoke(main, line.split())
        assert result.exit_code == 0, f"{line}: {result.output} {result.exception}"
    figures = json.loads(result.stdout)
    assert figures["images"] == 1
    assert all(0 <= figures["figures"][name] <= 1 for name in ("ap", "ap50", "ap75"))
