"""`train-teacher --method mal` and `infer-teacher` over a run of drawn scenes."""

import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pytest
import torch
from safetensors.torch import load_file

from pseudolabel.candidates import Candidate
from pseudolabel.condinst.network import CondInst
from pseudolabel.errors import InputError
from pseudolabel.masks import Grid
from pseudolabel.pipelines.demo.scenes import write_dataset
from pseudolabel.pipelines.engines.base import EngineOptions
from pseudolabel.pipelines.planning.make_plan import PlanConfig, make_plan
from pseudolabel.pipelines.planning.plan import read_plan
from pseudolabel.pipelines.run.commit import read_part
from pseudolabel.pipelines.run.paths import RunPaths
from pseudolabel.pipelines.runner import RunOptions, run_stage
from pseudolabel.pipelines.stage import Shard
from pseudolabel.pipelines.stages.fuse import FuseStage
from pseudolabel.pipelines.stages.infer_teacher import InferTeacherConfig, InferTeacherStage, category_ids
from pseudolabel.pipelines.stages.shard import ShardStage
from pseudolabel.pipelines.summary import stage_line
from pseudolabel.pipelines.trainers.base import run_training
from pseudolabel.records import notes_of, soft_mask_from_struct
from pseudolabel.teachers.base import TeacherInput
from pseudolabel.teachers.condinst.config import BoxInstConfig
from pseudolabel.teachers.mal.config import MalConfig
from pseudolabel.training.checkpoint import read_config, save_model
from tests.quick import TEACHER

INLINE = RunOptions(EngineOptions(name="inline"))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunPaths:
    """A run of four scenes with a teacher that has hardly been trained."""
    folder = tmp_path_factory.mktemp("scenes")
    write_dataset(folder, 4, 0, size_hw=(96, 96))
    run = RunPaths(tmp_path_factory.mktemp("run"))
    make_plan(run, PlanConfig(images=folder / "images", annotations=folder / "boxes.json", shards=1))
    run_stage(run, "shard", ShardStage.config_class(workers=1))
    run_training(run, "train-teacher", MalConfig(**TEACHER))
    return run


def _table(run: RunPaths, **options: object) -> pa.Table:
    stage = InferTeacherStage(InferTeacherConfig.model_validate({"threads": 1, **options}), run)
    stage.setup("cpu")
    plan = read_plan(run)
    return stage.run(
        Shard(0, 1, Path(plan.images_root), plan.exif), {"manifest": read_part(run.part("manifest", 0, 1))}
    )


def test_every_box_has_as_many_candidates_as_were_asked_for(run: RunPaths) -> None:
    rows = _table(run, per_box=3).to_pylist()
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
    assert set(_table(run, per_box=1, name="second")["source"].to_pylist()) == {"second"}


def test_the_same_shard_gives_the_same_bytes(run: RunPaths) -> None:
    assert _table(run, per_box=2).equals(_table(run, per_box=2))


class _Recorder:
    """A teacher that keeps what it is asked and answers nothing."""

    def __init__(self) -> None:
        self.asked: list[TeacherInput] = []

    def predict(self, inputs: Sequence[TeacherInput]) -> list[list[Candidate]]:
        self.asked += inputs
        return [[] for _ in inputs]


def test_a_teacher_is_told_which_boxes_are_of_one_class(run: RunPaths) -> None:
    plan, manifest = read_plan(run), read_part(run.part("manifest", 0, 1))
    stage = InferTeacherStage(InferTeacherConfig(threads=1), run)
    stage.setup("cpu")
    stage._teacher = recorder = _Recorder()
    stage.run(Shard(0, 1, Path(plan.images_root), plan.exif), {"manifest": manifest})
    images = sorted(manifest.to_pylist(), key=lambda row: row["image_key"])
    expected = [[one["category_id"] for one in image["objects"]] for image in images]
    assert [one.category_ids.tolist() for one in recorder.asked] == expected


def test_an_image_that_is_gone_is_a_reject_and_the_others_go_on(run: RunPaths) -> None:
    plan = read_plan(run)
    manifest = read_part(run.part("manifest", 0, 1)).to_pylist()
    gone = dict(manifest[0], file_name="gone.jpg")
    stage = InferTeacherStage(InferTeacherConfig(threads=1, per_box=1), run)
    stage.setup("cpu")
    inputs = {"manifest": pa.Table.from_pylist([gone, *manifest[1:]], read_part(run.part("manifest", 0, 1)).schema)}
    rows = stage.run(Shard(0, 1, Path(plan.images_root), plan.exif), inputs).to_pylist()
    rejects = [row for row in rows if row["status"] == "rejected"]
    assert [(row["image_key"], row["reason"]) for row in rejects] == [(gone["image_key"], "missing")]
    assert {row["image_key"] for row in rows} == {row["image_key"] for row in manifest}


def test_training_again_gives_the_same_teacher(run: RunPaths) -> None:
    before = run.model("teacher").read_bytes()
    run.model("teacher").unlink()
    for checkpoint in run.logs("train-teacher").rglob("step-*"):
        checkpoint.unlink()
    run_training(run, "train-teacher", MalConfig(**TEACHER))
    assert run.model("teacher").read_bytes() == before


def test_where_it_was_trained_is_no_part_of_a_teacher(run: RunPaths) -> None:
    """Candidates of a teacher stay fresh if it is trained again elsewhere, to the same weights."""
    trained = read_config(run.model("teacher"))["model"]
    assert trained["crop_px"] == 32
    assert not {"device", "threads", "loader_workers"} & trained.keys()


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
        run_training(run, "train-teacher", MalConfig(**TEACHER))


def test_a_teachers_classes_are_met_by_name_and_keep_their_ids_where_the_run_names_none() -> None:
    teachers = [{"id": 3, "name": "cat"}, {"id": 9, "name": "dog"}]
    assert category_ids(teachers, [{"id": 1, "name": "dog"}, {"id": 3, "name": "cow"}]) == [None, 1]
    assert category_ids(teachers, []) == [3, 9]


@pytest.fixture(scope="module")
def detector(run: RunPaths, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CondInst teacher of the run that is sure of everything it sees."""
    return _saved_detector(run, tmp_path_factory.mktemp("model"), class_agnostic=False)


def _saved_detector(run: RunPaths, folder: Path, *, class_agnostic: bool) -> Path:
    plan = read_plan(run)
    shape = {"backbone": "tiny", "backbone_weights": "none", "channels": 16, "convs": 1, "mask_branch_channels": 16}
    model = BoxInstConfig(class_agnostic=class_agnostic, **shape)
    torch.manual_seed(0)
    network = CondInst(model, model.detector_classes(len(plan.categories)))
    with torch.no_grad():
        for bias in (network.head.classes.bias, network.head.centerness.bias):
            assert bias is not None
            bias.fill_(2.0)
    about = {
        "method": "boxinst",
        "model": model.model_dump(mode="json"),
        "input": {"short_px": 96, "long_px": 96},
        "categories": [{"id": row["id"], "name": row["name"]} for row in plan.categories],
    }
    path = folder / "detector.safetensors"
    save_model(path, network.state_dict(), about)
    return path


def test_a_detector_gives_every_box_several_masks(run: RunPaths, detector: Path) -> None:
    rows = _table(run, weights=detector, per_box=3).to_pylist()
    objects = [one for image in read_part(run.part("manifest", 0, 1)).to_pylist() for one in image["objects"]]
    assert sorted(row["annotation_id"] for row in rows) == sorted([one["annotation_id"] for one in objects] * 3)
    assert all(row["box_iou"] is not None and 0 < row["box_score"] < 1 for row in rows)


def test_a_run_without_boxes_gets_the_detectors_own_candidates(run: RunPaths, detector: Path, tmp_path: Path) -> None:
    bare = RunPaths(tmp_path)
    make_plan(bare, PlanConfig(images=read_plan(run).images_root, shards=1))
    run_stage(bare, "shard", ShardStage.config_class(workers=1))
    rows = _table(bare, weights=detector).to_pylist()
    assert {row["status"] for row in rows} == {"ok"}
    assert all(row["annotation_id"] is None and row["box_iou"] is None for row in rows)
    assert {row["category_id"] for row in rows} <= {row["id"] for row in read_plan(run).categories}


def test_an_image_without_objects_gets_nothing_where_others_have_boxes(run: RunPaths, detector: Path) -> None:
    stage = InferTeacherStage(InferTeacherConfig(threads=1, weights=detector), run)
    stage.setup("cpu")
    plan = read_plan(run)
    rows = read_part(run.part("manifest", 0, 1)).to_pylist()
    rows[0]["objects"] = []
    table = pa.Table.from_pylist(rows, schema=read_part(run.part("manifest", 0, 1)).schema)
    found = stage.run(Shard(0, 1, Path(plan.images_root), plan.exif), {"manifest": table}).to_pylist()
    mine = [row for row in found if row["image_key"] == rows[0]["image_key"]]
    assert [row["status"] for row in mine] == ["empty"]
    assert any(row["status"] == "ok" for row in found)


@pytest.mark.parametrize("bias", [-9.0, 2.0], ids=["sure of nothing", "sure of all"])
def test_fuse_takes_a_detectors_mask_wherever_its_box_meets_the_given_one_and_counts_the_rest(
    run: RunPaths, tmp_path: Path, bias: float
) -> None:
    """The class score, which nobody asked for, decides nothing: neither who has a candidate nor how it scores."""
    weights = _saved_detector(run, tmp_path, class_agnostic=True)
    state = load_file(weights)
    state["head.classes.bias"].fill_(bias)
    save_model(weights, state, read_config(weights))
    own = RunPaths(tmp_path / "run")
    shutil.copytree(run.root, own.root)
    inferred = run_stage(own, "infer-teacher", InferTeacherConfig(weights=weights, threads=1, per_box=3), INLINE)
    rows = read_part(own.part("candidates/teacher", 0, 1)).to_pylist()
    best: dict[int, float] = {}
    for row in rows:
        assert row["box_score"] == row["box_iou"]
        best[row["annotation_id"]] = max(row["box_iou"], best.get(row["annotation_id"], 0.0))
    unmet = sum(overlap < 0.5 for overlap in best.values())
    assert 0 < unmet < len(best), "the drawn boxes are of many sizes, those of an untrained detector of few"
    assert f"{unmet} of which no mask meets the box" in stage_line(inferred.as_dict())
    fused = run_stage(own, "fuse", FuseStage.config_class(), INLINE)
    decided = read_part(own.part("pseudo", 0, 1)).to_pylist()
    assert sum(row["decision_reason"] == "no_candidate" for row in decided) == unmet
    assert f"{unmet} without a candidate, so that the box is the mask" in stage_line(fused.as_dict())


def test_a_detector_of_one_class_for_all_names_none_where_no_box_is_given(run: RunPaths, tmp_path: Path) -> None:
    bare = RunPaths(tmp_path / "run")
    make_plan(bare, PlanConfig(images=read_plan(run).images_root, shards=1))
    run_stage(bare, "shard", ShardStage.config_class(), INLINE)
    weights = _saved_detector(run, tmp_path, class_agnostic=True)
    table = _table(bare, weights=weights, detections=7)
    rows = table.to_pylist()
    assert {row["category_id"] for row in rows} == {None}
    assert notes_of(table) == {"classless": len(rows)}
    counts = Counter(row["image_key"] for row in rows)
    assert set(counts.values()) == {7}
