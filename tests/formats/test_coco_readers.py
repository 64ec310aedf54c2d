"""What other people's readers make of the written files: the masks, the classes and the scores that went in."""

import json
from pathlib import Path

import numpy as np
import pytest
from faster_coco_eval import COCO as FASTER_COCO
from PIL import Image
from pycocotools.coco import COCO
from torchvision.datasets import CocoDetection, wrap_dataset_for_transforms_v2

from pseudolabel.formats.coco import CocoOptions, write_coco

from .tables import HEADER, pieces, ring, two_shards

MASKS = {500: ring((30, 40)), 20: pieces((30, 40)), 3: pieces((25, 50))}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_coco(two_shards(), HEADER, tmp_path / "instances.json", tmp_path / "results.json")
    for row in json.loads((tmp_path / "instances.json").read_text())["images"]:
        (tmp_path / row["file_name"]).parent.mkdir(exist_ok=True)
        Image.new("RGB", (row["width"], row["height"])).save(tmp_path / row["file_name"])
    return tmp_path


@pytest.mark.parametrize("reader", [COCO, FASTER_COCO], ids=["pycocotools", "faster_coco_eval"])
def test_both_coco_readers_give_back_the_masks_by_annotation_id(folder: Path, reader: type) -> None:
    coco = reader(str(folder / "instances.json"))
    assert set(coco.getImgIds()) == {7, 1, 12}
    assert {row["id"] for row in coco.loadAnns(coco.getAnnIds())} == set(MASKS)
    for annotation_id, mask in MASKS.items():
        assert np.array_equal(coco.annToMask(coco.anns[annotation_id]), mask)


@pytest.mark.parametrize("reader", [COCO, FASTER_COCO], ids=["pycocotools", "faster_coco_eval"])
def test_both_coco_readers_load_the_results_against_the_instances(folder: Path, reader: type) -> None:
    found = reader(str(folder / "instances.json")).loadRes(str(folder / "results.json"))
    rows = sorted(found.anns.values(), key=lambda row: -row["score"])
    assert [row["score"] for row in rows] == [0.9, 0.5, 0.25]
    assert np.array_equal(found.annToMask(rows[0]), MASKS[500])


def test_torchvision_reads_images_and_masks(folder: Path) -> None:
    dataset = CocoDetection(str(folder), str(folder / "instances.json"))
    seen = {row["id"]: dataset.coco.annToMask(row) for _, rows in dataset for row in rows}
    assert len(dataset) == 3
    assert set(seen) == set(MASKS)
    assert all(np.array_equal(seen[key], mask) for key, mask in MASKS.items())


def test_torchvisions_wrapped_data_set_gives_mask_tensors_from_uncompressed_counts(folder: Path) -> None:
    options = CocoOptions(segmentation="uncompressed")
    write_coco(two_shards(), HEADER, folder / "plain.json", options=options)
    plain = CocoDetection(str(folder), str(folder / "plain.json"))
    dataset = wrap_dataset_for_transforms_v2(plain, target_keys=["masks", "boxes", "labels"])
    target = dataset[plain.ids.index(7)][1]
    assert target["labels"].tolist() == [17, 3]
    assert np.array_equal(target["masks"].numpy().astype(bool), np.stack([MASKS[500], MASKS[20]]))
    assert target["boxes"].tolist()[0] == [0, 0, 12, 9]
