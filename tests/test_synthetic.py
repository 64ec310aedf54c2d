"""Drawn scenes: the truth is exact, the seed decides everything, the files say the same as the scenes."""

import json
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as codec
from scipy import ndimage

from pseudolabel.pipelines.demo.scenes import CATEGORY_IDS, CLASSES, Scene, draw_scene, write_dataset

SEEDS = range(20)


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [draw_scene(seed) for seed in SEEDS]


def test_the_same_seed_draws_the_same_bytes_and_another_seed_another_picture() -> None:
    first, again, other = draw_scene(3), draw_scene(3), draw_scene(4)
    assert first.image.tobytes() == again.image.tobytes()
    assert first.masks.tobytes() == again.masks.tobytes()
    assert first.image.tobytes() != other.image.tobytes()


def test_masks_do_not_overlap_and_cover_exactly_the_labelled_pixels(scenes: list[Scene]) -> None:
    for scene in scenes:
        assert scene.masks.sum(0).max() <= 1
        for label in range(len(CLASSES)):
            of_class = [mask for mask, own in zip(scene.masks, scene.labels, strict=True) if own == label]
            union = np.any(of_class, axis=0) if of_class else np.zeros(scene.semantic.shape, bool)
            assert np.array_equal(scene.semantic == label + 1, union)


def test_boxes_are_the_tight_extent_of_masks(scenes: list[Scene]) -> None:
    for scene in scenes:
        for mask, (x0, y0, x1, y1) in zip(scene.masks, scene.boxes_xyxy(), strict=True):
            x, y, width, height = codec.toBbox(codec.encode(np.asfortranarray(mask.astype(np.uint8))))
            assert (x0, y0, x1, y1) == (x, y, x + width, y + height)


def test_scenes_hold_every_class_holes_pieces_touching_twins_small_and_large_objects(scenes: list[Scene]) -> None:
    assert {label for scene in scenes for label in scene.labels} == set(range(len(CLASSES)))
    areas = [int(mask.sum()) for scene in scenes for mask in scene.masks]
    assert min(areas) >= 30
    assert min(areas) < 32**2 < 64**2 < max(areas)
    masks = [mask for scene in scenes for mask in scene.masks]
    assert any((ndimage.binary_fill_holes(mask) & ~mask).sum() > 20 for mask in masks)
    assert any(ndimage.label(mask)[1] > 1 for mask in masks)
    assert any(_has_touching_twins(scene) for scene in scenes)


def _has_touching_twins(scene: Scene) -> bool:
    grown = [ndimage.binary_dilation(mask) for mask in scene.masks]
    pairs = [(i, j) for i in range(len(grown)) for j in range(i) if scene.labels[i] == scene.labels[j]]
    return any((grown[i] & scene.masks[j]).any() for i, j in pairs)


def test_an_object_differs_from_the_ground_around_it_in_most_scenes(scenes: list[Scene]) -> None:
    differences = []
    for scene in scenes:
        for mask in scene.masks:
            rim = ndimage.binary_dilation(mask, iterations=6) & (scene.semantic == 0)
            if rim.sum() > 20:
                inner, outer = scene.image[mask].mean(0), scene.image[rim].mean(0)
                differences.append(np.abs(inner - outer).max())
    assert np.median(differences) > 20


@pytest.mark.parametrize("size_hw", [(64, 64), (96, 333), (480, 640)], ids=str)
def test_a_scene_has_the_size_and_the_classes_that_were_asked_for(size_hw: tuple[int, int]) -> None:
    scene = draw_scene(1, size_hw, classes=("bar", "ring"))
    assert scene.image.shape == (*size_hw, 3)
    assert scene.masks.shape == (len(scene.labels), *size_hw)
    assert {CLASSES[label] for label in scene.labels} <= {"bar", "ring"}


def test_an_unknown_class_or_a_tiny_picture_is_refused() -> None:
    with pytest.raises(ValueError, match="'cube'"):
        draw_scene(0, classes=("cube",))
    with pytest.raises(ValueError, match="64 x 64"):
        draw_scene(0, (63, 200))


def test_twenty_scenes_of_256_pixels_take_less_than_a_second_of_one_core() -> None:
    start = time.process_time()
    for seed in SEEDS:
        draw_scene(seed)
    assert time.process_time() - start < 1.0


def test_written_files_hold_the_scenes(tmp_path: Path) -> None:
    write_dataset(tmp_path, 3, seed=5)
    truth = json.loads((tmp_path / "instances.json").read_text())
    boxes = json.loads((tmp_path / "boxes.json").read_text())
    assert [category["id"] for category in truth["categories"]] == list(CATEGORY_IDS.values())
    assert [row["id"] for row in truth["annotations"]] == list(range(1, len(truth["annotations"]) + 1))
    assert {key for row in boxes["annotations"] for key in row} == {"id", "image_id", "category_id", "bbox", "iscrowd"}
    scene = draw_scene(5 * 1_000_003 + 1)
    rows = [row for row in truth["annotations"] if row["image_id"] == truth["images"][1]["id"]]
    assert np.array_equal(np.stack([codec.decode(row["segmentation"]) for row in rows]), scene.masks)
    assert [row["category_id"] for row in rows] == [CATEGORY_IDS[CLASSES[label]] for label in scene.labels]
    assert np.array_equal(np.array(Image.open(tmp_path / "labels" / "00001.png")), scene.semantic)
    image = np.array(Image.open(tmp_path / "images" / truth["images"][1]["file_name"])).astype(int)
    assert np.abs(image - scene.image).mean() < 8


def test_writing_a_data_set_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    write_dataset(tmp_path / "a", 2, seed=1)
    write_dataset(tmp_path / "b", 2, seed=1)
    files = [path.relative_to(tmp_path / "a") for path in sorted((tmp_path / "a").rglob("*")) if path.is_file()]
    assert len(files) == 7
    assert all((tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes() for name in files)
