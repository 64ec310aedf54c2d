"""`train-teacher --method mal` and `infer-teacher` over a run of drawn scenes."""

from pathlib import Path

import pyarrow as pa
import pytest

from pseudolabel.errors import InputError
from pseudolabel.masks import Grid
from pseudolabel.pipelines.commit import read_part
from pseudolabel.pipelines.make_plan import PlanConfig, make_plan
from pseudolabel.pipelines.paths import RunPaths
from pseudolabel.pipelines.plan import read_plan
from pseudolabel.pipelines.runner import run_stage
from pseudolabel.pipelines.stage import Shard
from pseudolabel.pipelines.stages.infer_teacher import InferTeacherConfig, InferTeacherStage
from pseudolabel.pipelines.stages.shard import ShardStage
from pseudolabel.pipelines.train_teacher import TrainTeacherConfig, train_teacher
from pseudolabel.records import soft_mask_from_struct
from pseudolabel.synthetic import write_dataset

SETTINGS = {"backbone": "tiny", "backbone_weights": "none", "crop_px": 32, "epochs": 1.0, "device": "cpu", "threads": 1}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunPaths:
    """A run of four scenes with a teacher that has hardly been trained."""
    folder = tmp_path_factory.mktemp("scenes")
    write_dataset(folder, 4, 0, size_hw=(96, 96))
    run = RunPaths(tmp_path_factory.mktemp("run"))
    make_plan(run, PlanConfig(images=folder / "images", annotations=folder / "boxes.json", shards=1))
    run_stage(run, "shard", ShardStage.config_class(workers=1))
    train_teacher(run, TrainTeacherConfig(**SETTINGS))
    return run


def _table(run: RunPaths, **options: object) -> pa.Table:
    stage = InferTeacherStage(InferTeacherConfig.model_validate({"threads": 1, **options}), run)
    stage.setup("cpu")
    plan = read_plan(run)
    return stage.run(
        Shard(0, 1, Path(plan.images_root), plan.exif), {"manifest": read_part(run.part("manifest", 0, 1))}
    )


def test_every_box_has_as_many_candidates_as_were_asked_for(run: RunPaths) -> None:
    rows = _table(run, candidates=3).to_pylist()
    objects = {
        one["annotation_id"]: one
        for image in read_part(run.part("manifest", 0, 1)).to_pylist()
        for one in image["objects"]
    }
    assert sorted(row["annotation_id"] for row in rows) == sorted([*objects] * 3)
    for row in rows:
        x, y, width, height = objects[row["annotation_id"]]["bbox_xywh"]
        grid = soft_mask_from_struct(row["mask"]).grid
        assert isinstance(grid, Grid)
        assert grid.extent_xyxy == pytest.approx((x, y, x + width, y + height), abs=1e-2)
        assert row["category_id"] == objects[row["annotation_id"]]["category_id"]
        assert (row["status"], row["source"]) == ("ok", "teacher")


def test_the_table_has_the_name_that_was_given(run: RunPaths) -> None:
    assert InferTeacherStage(InferTeacherConfig(name="second"), run).writes == "candidates/second"
    assert set(_table(run, candidates=1, name="second")["source"].to_pylist()) == {"second"}


def test_the_same_shard_gives_the_same_bytes(run: RunPaths) -> None:
    assert _table(run, candidates=2).equals(_table(run, candidates=2))


def test_an_image_that_is_gone_is_a_reject_and_the_others_go_on(run: RunPaths) -> None:
    plan = read_plan(run)
    manifest = read_part(run.part("manifest", 0, 1)).to_pylist()
    gone = dict(manifest[0], file_name="gone.jpg")
    stage = InferTeacherStage(InferTeacherConfig(threads=1, candidates=1), run)
    stage.setup("cpu")
    inputs = {"manifest": pa.Table.from_pylist([gone, *manifest[1:]], read_part(run.part("manifest", 0, 1)).schema)}
    rows = stage.run(Shard(0, 1, Path(plan.images_root), plan.exif), inputs).to_pylist()
    rejects = [row for row in rows if row["status"] == "rejected"]
    assert [(row["image_key"], row["reason"]) for row in rejects] == [(gone["image_key"], "missing")]
    assert {row["image_key"] for row in rows} == {row["image_key"] for row in manifest}


def test_training_again_gives_the_same_teacher(run: RunPaths) -> None:
    before = run.model("teacher").read_bytes()
    run.model("teacher").unlink()
    for checkpoint in run.logs("train-teacher").rglob("last.ckpt"):
        checkpoint.unlink()
    train_teacher(run, TrainTeacherConfig(**SETTINGS))
    assert run.model("teacher").read_bytes() == before


def test_no_crops_are_left_on_disk_after_training(run: RunPaths) -> None:
    assert not list(run.logs("train-teacher").rglob("*.u8"))


def test_a_model_of_another_kind_is_refused(run: RunPaths, tmp_path: Path) -> None:
    weights = tmp_path / "other.safetensors"
    weights.write_bytes(run.model("teacher").read_bytes())
    config = (
        run.model("teacher")
        .with_suffix(".yaml")
        .read_text()
        .replace("\n  method: mal", "")
        .replace("method: mal\n", "", 1)
    )
    weights.with_suffix(".yaml").write_text(config)
    with pytest.raises(InputError, match="names no method"):
        InferTeacherStage(InferTeacherConfig(weights=weights), run).setup("cpu")


def test_a_run_without_boxes_cannot_train_a_teacher(tmp_path: Path) -> None:
    write_dataset(tmp_path / "scenes", 1, 0, size_hw=(64, 64))
    run = RunPaths(tmp_path / "run")
    make_plan(run, PlanConfig(images=tmp_path / "scenes" / "images", shards=1))
    run_stage(run, "shard", ShardStage.config_class(workers=1))
    with pytest.raises(InputError, match="no box to learn from"):
        train_teacher(run, TrainTeacherConfig(**SETTINGS))
