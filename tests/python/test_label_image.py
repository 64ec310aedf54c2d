"""`label_image`: the masks of a run folder, of one picture in memory."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import pseudolabel as pl
from pseudolabel.errors import ConfigError, InputError
from pseudolabel.pipelines.demo.scenes import write_dataset
from pseudolabel.pipelines.planning.plan import read_plan
from pseudolabel.pipelines.run.paths import RunPaths

from .color_network import COLORS, write_color_network

PHOTO = np.full((40, 60, 3), 90, dtype=np.uint8)
BOX = [[10, 5, 40, 35]]


def assert_same_as_the_run(run: pl.Run, model: Any) -> None:
    """Every image of the run by itself, by the run's own boxes and class names."""
    names = read_plan(RunPaths(Path(run))).class_names
    of_run = run.labels()
    assert len(of_run)
    for key, image in of_run.images.items():
        assert of_run.load_pixels is not None
        boxes = sorted(image.objects, key=lambda box: box.annotation_id or 0)
        own = pl.label_image(
            of_run.load_pixels(key),
            [box.box_xyxy for box in boxes],
            model,
            [names[box.category_id] for box in boxes],
        )
        there = of_run.filter(image=key)
        np.testing.assert_array_equal(own.masks(), there.masks())
        np.testing.assert_array_equal(own.scores, there.scores)
        assert own.decisions == there.decisions


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scenes")
    write_dataset(folder, 2, 5, size_hw=(128, 128))
    write_color_network(folder / "net.onnx", COLORS)
    return folder


def test_masks_are_those_of_a_run_by_colours_alone(scenes: Path, tmp_path: Path) -> None:
    run = pl.Run.create(tmp_path, images=scenes / "images", boxes=scenes / "boxes.json", shards=1)
    run.infer_colors(engine="inline").fuse(engine="inline")
    assert_same_as_the_run(run, None)


def test_masks_are_those_of_a_run_by_a_segmenter_with_its_closer_looks(scenes: Path, tmp_path: Path) -> None:
    run = pl.Run.create(tmp_path, images=scenes / "images", boxes=scenes / "boxes.json", shards=1)
    run.infer_semantic(model=f"onnx:{scenes / 'net.onnx'}", engine="inline").fuse(engine="inline")
    assert_same_as_the_run(run, pl.load_segmenter(f"onnx:{scenes / 'net.onnx'}"))


def test_masks_are_those_of_a_run_on_photographs(shared_folder: Path, tmp_path: Path) -> None:
    data, weights = shared_folder / "data" / "coco-dev", shared_folder / "weights"
    (tmp_path / "images").mkdir()
    for path in sorted((data / "images").glob("*.jpg"))[:2]:
        shutil.copy(path, tmp_path / "images")
    model = f"onnx:{weights / 'deeplabv3_mobilenetv2_voc21.onnx'}"
    torch.set_num_threads(1)
    run = pl.Run.create(tmp_path / "run", images=tmp_path / "images", boxes=_boxes_of(data, tmp_path), shards=1)
    run.infer_semantic(model=model, engine="inline").fuse(engine="inline")
    assert_same_as_the_run(run, pl.load_segmenter(model))


def test_a_box_fills_with_an_even_disc_on_an_even_ground() -> None:
    rows, columns = np.mgrid[:80, :100]
    disc = (rows - 40) ** 2 + (columns - 50) ** 2 < 25**2
    rgb = np.where(disc[..., None], (200, 40, 30), (40, 150, 60)).astype(np.uint8)
    labels = pl.label_image(Image.fromarray(rgb), [[25, 15, 76, 66]], classes="disc")
    (mask,) = labels.masks()
    assert (mask & disc).sum() / (mask | disc).sum() > 0.95
    assert labels.class_names == ["disc"]


def test_no_box_gives_no_label_and_an_option_has_its_effect() -> None:
    assert len(pl.label_image(PHOTO, [])) == 0
    assert pl.label_image(PHOTO, BOX, keep_score=0.0, review_score=0.0).decisions == ["keep"]
    assert pl.label_image(PHOTO, BOX, keep_score=1.0, review_score=0.0).decisions == ["review"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"rgb": PHOTO / 255}, r"expected \(height, width, 3\) of uint8, got \(40, 60, 3\) of float64"),
        ({"rgb": PHOTO[..., 0]}, r"got \(40, 60\) of uint8"),
        ({"boxes_xyxy": [[10, 5, 10, 35]]}, "box 1 of .*width or height is zero"),
        ({"boxes_xyxy": [[1, 2, 9, 9], [70, 5, 90, 35]]}, "box 2 of .*beside the image"),
        ({"boxes_xyxy": [[30, 20, 10, 5]]}, r"box 1 of \[30.0, 20.0, 10.0, 5.0\], taken as left, top, right, bottom"),
        ({"boxes_xyxy": [["a", "b", "c", "d"]]}, "boxes: expected rows of four numbers, left, top, right, bottom"),
        ({"boxes_xyxy": [[1, 2, 3]]}, "boxes: expected rows of four numbers"),
        ({"boxes_xyxy": None}, "boxes: expected rows of four numbers, .* got None"),
        ({"classes": ["a", "b"]}, "expected a class for each of 1 boxes, got 2"),
    ],
    ids=["floats", "gray", "no area", "beside", "width and height", "texts", "three", "none", "classes"],
)
def test_what_cannot_be_labelled_is_an_input_error(given: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        pl.label_image(**{"rgb": PHOTO, "boxes_xyxy": BOX} | given)


def test_words_that_mean_nothing_are_refused(scenes: Path) -> None:
    with pytest.raises(ConfigError, match="unknown key 'keep_scor'; did you mean 'keep_score'"):
        pl.label_image(PHOTO, BOX, keep_scor=0.5)
    with pytest.raises(ConfigError, match="has to be told the boxes' classes"):
        pl.label_image(PHOTO, BOX, f"onnx:{scenes / 'net.onnx'}")
    with pytest.raises(ConfigError, match="unexpected keyword argument 'clases'"):
        pl.load_segmenter("onnx:net.onnx", clases=["a"])
    (scenes / "maps").mkdir(exist_ok=True)
    Image.fromarray(PHOTO[..., 0]).save(scenes / "maps" / "a.png")
    maps = pl.load_segmenter(f"labels:{scenes / 'maps'}", label_format="raw", classes=["a"], ignore_index=255)
    with pytest.raises(ConfigError, match="a picture in memory has none"):
        pl.label_image(PHOTO, BOX, maps, "a")


def _boxes_of(data: Path, folder: Path) -> Path:
    """The boxes file cut to the images that are there."""
    content = json.loads((data / "boxes.json").read_text())
    there = {path.name for path in (folder / "images").iterdir()}
    content["images"] = [row for row in content["images"] if row["file_name"] in there]
    ids = {row["id"] for row in content["images"]}
    content["annotations"] = [row for row in content["annotations"] if row["image_id"] in ids]
    (folder / "boxes.json").write_text(json.dumps(content))
    return folder / "boxes.json"


def test_a_model_that_is_not_there_is_said_to_be_missing_not_to_lack_a_card(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such"):
        pl.load_segmenter(f"onnx:{tmp_path / 'nothere.onnx'}")


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        pytest.param({"classes": 3}, "classes: expected a name for all boxes", id="classes, a number"),
        pytest.param({"classes": [["a"]]}, "classes: expected a name for all boxes", id="classes, nested"),
        pytest.param({"classes": {"a": 1}}, "classes: expected a name for all boxes", id="classes by name"),
        pytest.param({"classes": "a", "model": Path("net.onnx")}, "model: expected onnx:FILE", id="model, a path"),
    ],
)
def test_an_argument_of_another_type_is_named_with_what_it_takes(asked: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        pl.label_image(np.zeros((20, 30, 3), dtype=np.uint8), [[1, 1, 9, 9]], **asked)


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        pytest.param({"long_side": "a"}, "long_side: Input should be a valid integer", id="side, a text"),
        pytest.param({"classes": 3}, "classes: Input should be a valid tuple", id="classes, a number"),
        pytest.param({"card": 3}, "card: Input is not a valid path", id="card, a number"),
        pytest.param({"device": "gpu"}, "device: String should match", id="device that is none"),
    ],
)
def test_an_option_of_a_segmenter_of_another_type_is_named(asked: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=f"load_segmenter: {told}"):
        pl.load_segmenter("onnx:net.onnx", **asked)
