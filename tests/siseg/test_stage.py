"""`train-siseg` and `infer-siseg` over a small run of drawn scenes."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pseudolabel import records
from pseudolabel.config import parse_config
from pseudolabel.errors import ConfigError, InputError
from pseudolabel.pipelines.demo.scenes import CLASSES, write_dataset
from pseudolabel.pipelines.options.train_siseg import TrainSisegConfig
from pseudolabel.pipelines.planning.make_plan import PlanConfig, make_plan
from pseudolabel.pipelines.run.commit import read_part
from pseudolabel.pipelines.run.paths import RunPaths
from pseudolabel.pipelines.stage import StageConfig
from pseudolabel.pipelines.stages.infer_semantic import InferSemanticConfig
from pseudolabel.pipelines.stages.infer_siseg import InferSisegConfig, categories_by_class
from pseudolabel.pipelines.stages.shard import ShardConfig
from pseudolabel.pipelines.trainers.base import run_training
from pseudolabel.pipelines.trainers.siseg import labelled_images
from pseudolabel.pipelines.work.job import ShardWorker, make_job
from pseudolabel.siseg.candidates import mask_box

SMALL: dict[str, Any] = {
    "backbone": "tiny",
    "backbone_weights": "none",
    "head_width": 64,
    "crop": 96,
    "radius": 5,
    "steps": 2,
    "batch_size": 2,
    "device": "cpu",
}


def work(run: RunPaths, stage: str, config: StageConfig) -> list[dict[str, Any]]:
    """The rows that a stage writes for the run's one shard, in this process."""
    worker = ShardWorker(make_job(run, stage, config, "cpu"))
    assert worker.attempt(0), run.failure(stage, 0).read_text()
    rows: list[dict[str, Any]] = read_part(run.part(worker.stage.writes, 0, 1)).to_pylist()
    return rows


def make_run(folder: Path, annotations: str | None) -> RunPaths:
    write_dataset(folder / "data", 2, 3, size_hw=(96, 96))
    run = RunPaths(folder / "run")
    given = folder / "data" / annotations if annotations else None
    make_plan(run, PlanConfig(images=folder / "data" / "images", annotations=given, shards=1))
    work(run, "shard", ShardConfig())
    labels = InferSemanticConfig(
        model=f"labels:{folder / 'data' / 'labels'}",
        label_format="raw",
        classes=["background", *CLASSES],
        ignore_index=255,
    )
    work(run, "infer-semantic", labels)
    return run


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> RunPaths:
    run = make_run(tmp_path_factory.mktemp("boxed"), "boxes.json")
    run_training(run, "train-siseg", TrainSisegConfig(**SMALL))
    return run


def test_training_writes_weights_with_what_is_needed_to_use_them(trained: RunPaths) -> None:
    card = trained.model("siseg").with_suffix(".yaml").read_text()
    assert trained.model("siseg").is_file()
    assert "backbone: tiny" in card
    assert "images: 2" in card


def test_candidates_belong_to_boxes_of_their_class_and_stay_inside(trained: RunPaths) -> None:
    rows = work(trained, "infer-siseg", InferSisegConfig(pictures=1))
    objects = {o["annotation_id"]: o for o in _objects(trained)}
    found = [row for row in rows if row["status"] == "ok"]
    assert found
    for row in found:
        given = objects[row["annotation_id"]]
        x, y, width, height = given["bbox_xywh"]
        mask = records.soft_mask_from_struct(row["mask"])
        assert row["category_id"] == given["category_id"]
        assert mask.grid.extent_xyxy == pytest.approx((x, y, x + width, y + height), abs=1e-3)
        assert row["box_xyxy"] == list(mask_box(mask, (96, 96)) or ())
        assert 0.3 <= row["box_iou"] <= 1
        assert 0 <= row["box_score"] <= 1
        assert row["knows_class"]
    assert {row["image_key"] for row in rows} == {row["image_key"] for row in _manifest(trained)}


def test_pictures_are_drawn_for_as_many_images_as_asked(trained: RunPaths) -> None:
    work(trained, "infer-siseg", InferSisegConfig(pictures=1, smallest_share=0.001))
    (picture,) = trained.pictures("infer-siseg").glob("*.png")
    assert Image.open(picture).size == (3 * 284 + 88, 2 * 298)  # six panels and the colour wheel's strip


def test_same_shard_gives_the_same_table_again(trained: RunPaths) -> None:
    first = work(trained, "infer-siseg", InferSisegConfig(walk_steps=64))
    trained.part("candidates/siseg", 0, 1).unlink()
    assert work(trained, "infer-siseg", InferSisegConfig(walk_steps=64)) == first


def test_without_boxes_candidates_stand_alone_under_the_segmenters_classes(trained: RunPaths, tmp_path: Path) -> None:
    run = make_run(tmp_path, None)
    rows = work(run, "infer-siseg", InferSisegConfig(weights=trained.model("siseg")))
    found = [row for row in rows if row["status"] == "ok"]
    assert found
    assert {row["annotation_id"] for row in found} == {None}
    assert {row["category_id"] for row in found} <= set(range(1, 6))


def test_truth_as_labels_equals_the_label_maps_of_the_same_scenes(tmp_path: Path) -> None:
    run = make_run(tmp_path, "instances.json")
    truth, semantic = (
        [image.read_labels() for image in labelled_images(run, TrainSisegConfig(**SMALL, label_source=kind))]
        for kind in ("truth", "semantic")
    )
    for first, second in zip(truth, semantic, strict=True):
        assert np.array_equal(first > 0, second > 0)


def test_truth_is_refused_where_the_boxes_have_no_masks(trained: RunPaths) -> None:
    (image, *_) = labelled_images(trained, TrainSisegConfig(**SMALL, label_source="truth"))
    with pytest.raises(InputError, match="has no mask"):
        image.read_labels()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"label_source": "sematic"}, "label_source: expected semantic, labels:DIR or truth"),
        ({"label_format": "voc"}, "label_format does nothing without label_source labels:DIR"),
        ({"smallest_scale": 2.0}, "smallest_scale must not exceed largest_scale"),
        ({"crop": 100}, "crop: .* multiple of 16"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else None,
)
def test_options_that_do_not_go_together_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_config(TrainSisegConfig, values, where="train-siseg")


def test_classes_without_a_category_are_no_objects() -> None:
    classes = ("background", "aeroplane", "sofa")
    assert categories_by_class(classes, [{"id": 3, "name": "airplane"}]) == {1: [3]}
    assert categories_by_class(classes, []) == {1: [1], 2: [2]}


def _manifest(run: RunPaths) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = read_part(run.part("manifest", 0, 1)).to_pylist()
    return rows


def _objects(run: RunPaths) -> list[dict[str, Any]]:
    return [one for row in _manifest(run) for one in row["objects"]]
