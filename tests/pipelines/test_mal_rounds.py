"""Rounds of the box-conditioned teacher: what the next round is told, and that it makes a difference."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from pseudolabel import records
from pseudolabel.candidates import Candidate, GivenBox
from pseudolabel.masks import Grid, SoftMask, resample
from pseudolabel.pipelines.demo.scenes import write_dataset
from pseudolabel.pipelines.planning.make_plan import PlanConfig, make_plan
from pseudolabel.pipelines.planning.plan import read_plan
from pseudolabel.pipelines.run.commit import commit_table, footer_of, read_footer, read_part
from pseudolabel.pipelines.run.paths import RunPaths
from pseudolabel.pipelines.runner import run_stage
from pseudolabel.pipelines.stages.infer_teacher import InferTeacherConfig
from pseudolabel.pipelines.stages.shard import ShardStage
from pseudolabel.pipelines.trainers.base import run_training
from pseudolabel.pipelines.trainers.images import boxed_images
from pseudolabel.pipelines.trainers.mal import at_most, is_learned
from pseudolabel.pipelines.trainers.mal_rounds import belief, fused_targets
from pseudolabel.teachers.base import TeacherInput, proposal
from pseudolabel.teachers.mal.config import MalConfig
from pseudolabel.teachers.mal.crops import CANVAS_CELLS, neighbour_boxes
from tests.quick import TEACHER as QUICK

TWO_ROUNDS = {"rounds": 2, "last_crop_px": 32}


@pytest.fixture
def run(tmp_path: Path) -> RunPaths:
    """Three drawn scenes in two shards."""
    write_dataset(tmp_path / "scenes", 3, 0, size_hw=(96, 96))
    run = RunPaths(tmp_path / "run")
    scenes = tmp_path / "scenes"
    make_plan(run, PlanConfig(images=str(scenes / "images"), annotations=scenes / "boxes.json", shards=2))
    run_stage(run, "shard", ShardStage.config_class(workers=1))
    return run


class _Ellipses:
    """A teacher that is sure of an ellipse in every box."""

    def predict(self, inputs: Sequence[TeacherInput]) -> list[list[Candidate]]:
        return [[_ellipse(box) for box in one.boxes] for one in inputs]


class _Silent:
    """A teacher that nobody may ask."""

    def predict(self, inputs: Sequence[TeacherInput]) -> list[list[Candidate]]:
        raise AssertionError("the targets are there already")


def _ellipse(box: GivenBox) -> Candidate:
    cells = (np.arange(32) + 0.5) / 16 - 1
    inside = (cells[:, None] ** 2 + cells[None, :] ** 2 <= 1) * np.uint8(255)
    left, top, right, bottom = box.box_xyxy
    grid = Grid(left, top, (right - left) / 32, (bottom - top) / 32, 32, 32)
    return proposal(box, box.box_xyxy, 0.9, 1.0, SoftMask(grid, inside))


def test_targets_show_the_last_rounds_masks_over_the_canvases(run: RunPaths, tmp_path: Path) -> None:
    plan = read_plan(run)
    images = boxed_images(run, plan, is_learned)
    targets = fused_targets(run, plan, images, _Ellipses(), [], tmp_path / "targets.npy")
    assert targets.masks.shape == (sum(len(one.objects) for one in images), CANVAS_CELLS, CANVAS_CELLS)
    large = [max(side := one.bbox_xywh[2:]) > 30 and min(side) > 30 for image in images for one in image.objects]
    assert any(large)
    half, corners = slice(7 * CANVAS_CELLS // 16, 9 * CANVAS_CELLS // 16), slice(0, 7 * CANVAS_CELLS // 32)
    middle = targets.masks[large][:, half, half] > 127  # the box is the middle half of its canvas
    corner = targets.masks[large][:, corners, corners]
    assert middle.mean() > 0.9
    assert corner.max() == 0
    assert ((targets.scores > 0.3) & (targets.scores <= 1)).mean() > 0.8


@pytest.mark.parametrize(("score", "weight"), [(0.2, 0.0), (0.45, 0.0), (0.625, 0.5), (0.8, 1.0), (0.97, 1.0)])
def test_a_mask_teaches_as_much_as_it_is_believed(score: float, weight: float) -> None:
    assert belief(score) == pytest.approx(weight)


def test_targets_of_a_stopped_call_are_read_again(run: RunPaths, tmp_path: Path) -> None:
    plan = read_plan(run)
    images = boxed_images(run, plan, is_learned)
    first = fused_targets(run, plan, images, _Ellipses(), [], tmp_path / "targets.npy")
    again = fused_targets(run, plan, images, _Silent(), [], tmp_path / "targets.npy")
    np.testing.assert_array_equal(first.masks, again.masks)
    np.testing.assert_array_equal(first.scores, again.scores)
    np.testing.assert_array_equal(first.claims, again.claims)


def test_so_many_objects_at_most_are_those_of_whole_images(run: RunPaths) -> None:
    images = boxed_images(run, read_plan(run), is_learned)
    counts = [len(one.objects) for one in images]
    assert at_most(images, MalConfig(max_objects=sum(counts))) == images
    some = at_most(images, MalConfig(max_objects=sum(counts) - 1))
    assert some == [one for one in images if one in some]
    assert 0 < sum(len(one.objects) for one in some) < sum(counts)
    assert len(at_most(images, MalConfig(max_objects=1))) == 1
    drawn = {at_most(images, MalConfig(max_objects=max(counts), seed=seed))[0].file_name for seed in range(20)}
    assert len(drawn) > 1


def test_objects_are_told_the_masks_of_those_whose_boxes_overlap(run: RunPaths, tmp_path: Path) -> None:
    plan = read_plan(run)
    images = boxed_images(run, plan, is_learned)
    targets = fused_targets(run, plan, images, _Ellipses(), [], tmp_path / "targets.npy")
    near = [neighbour_boxes(torch.tensor(one.boxes_xyxy), torch.tensor(one.category_ids))[0] for one in images]
    crowded = np.concatenate([(boxes[..., 2] > 0).any(dim=1).numpy() for boxes in near])
    assert crowded.any()
    assert not crowded.all()
    assert not targets.claims[~crowded].any()
    assert (targets.claims[crowded].max(axis=(1, 2)) > 127).mean() > 0.5


def test_a_guides_masks_are_fused_with_the_networks(run: RunPaths, tmp_path: Path) -> None:
    """A guide that calls every box full fills what an ellipse alone leaves empty."""
    plan = read_plan(run)
    images = boxed_images(run, plan, is_learned)
    alone = fused_targets(run, plan, images, _Ellipses(), [], tmp_path / "alone.npy")
    _write_full_boxes(run)
    guided = fused_targets(run, plan, images, _Ellipses(), ["full"], tmp_path / "guided.npy")
    assert guided.masks.mean() > 1.05 * alone.masks.mean()


def _write_full_boxes(run: RunPaths) -> None:
    """A table `candidates/full` that calls every box full."""
    plan = read_plan(run)
    images = boxed_images(run, plan, is_learned)
    for shard in range(plan.num_shards):
        rows = [_full(image.key, one) for image in images if image.shard == shard for one in image.objects]
        footer = read_footer(run.part("manifest", shard, plan.num_shards))
        table = records.table_from_rows(rows, records.CANDIDATES)
        commit_table(table, run.part("candidates/full", shard, plan.num_shards), footer)


def _full(key: str, target: GivenBox) -> dict[str, object]:
    box = target.box_xyxy
    soft = SoftMask(Grid(box[0], box[1], box[2] - box[0], box[3] - box[1], 1, 1), np.full((1, 1), 255, np.uint8))
    full = Candidate("full", target.annotation_id, target.category_id, box, 0.9, 1.0, soft)
    return {"image_key": key, **full.to_row(), **records.ok("test")}


def test_a_second_round_gives_another_teacher_and_the_same_one_every_time(run: RunPaths) -> None:
    one = run_training(run, "train-teacher", MalConfig(**QUICK)).sha256
    two = run_training(run, "train-teacher", MalConfig(**QUICK, **TWO_ROUNDS), overwrite=True).sha256
    assert one != two
    _write_full_boxes(run)
    guided = MalConfig(**QUICK, **TWO_ROUNDS, guides=["full"])
    three = run_training(run, "train-teacher", guided, overwrite=True).sha256
    assert three not in (one, two)
    assert run_training(run, "train-teacher", MalConfig(**QUICK, **TWO_ROUNDS), overwrite=True).sha256 == two


def test_guides_may_speak_before_there_is_a_teacher(run: RunPaths) -> None:
    alone = run_training(run, "train-teacher", MalConfig(**QUICK)).sha256
    _write_full_boxes(run)
    guided = MalConfig(**QUICK, guides=["full"], guided_from=1)
    assert run_training(run, "train-teacher", guided, overwrite=True).sha256 != alone


def test_guides_that_never_speak_are_refused() -> None:
    with pytest.raises(ValidationError, match="guides speak from round 2 on: raise rounds, or lower guided_from"):
        MalConfig(guides=["semantic"])


@pytest.mark.parametrize(
    ("options", "sides"),
    [
        ({}, [128]),
        ({"rounds": 2}, [128, 192]),
        ({"rounds": 4}, [128, 160, 160, 192]),  # by a factor of 1.5 ** (1 / 3) each, to the nearest multiple of 32
        ({"rounds": 3, "crop_px": 288}, [288, 288, 288]),
        ({"rounds": 3, "crop_px": 64, "last_crop_px": 64}, [64, 64, 64]),
    ],
)
def test_crops_grow_from_round_to_round(options: dict[str, int], sides: list[int]) -> None:
    models = MalConfig.model_validate(options).by_round()
    assert [model.crop_px for model in models] == sides
    assert {model.canvas_px for model in models} == {max(sides) * 3 // 2}


def test_candidates_say_which_guides_their_teacher_has_heard(run: RunPaths) -> None:
    _write_full_boxes(run)
    config = MalConfig(**QUICK, rounds=3, last_crop_px=32, guides=["full"])
    run_training(run, "train-teacher", config)
    run_stage(run, "infer-teacher", InferTeacherConfig(workers=1, device="cpu"))
    assert read_footer(run.part("candidates/teacher", 0, 2)).learned_from == {"full": 2}
    part = run.part("candidates/teacher", 0, 2)
    assert footer_of(read_part(part)) == read_footer(part)
    assert read_footer(run.part("candidates/full", 0, 2)).learned_from == {}


@pytest.mark.parametrize(("name", "wanted"), [("guided_from", "guides"), ("last_crop_px", "rounds of 2 or more")])
def test_options_of_rounds_that_would_do_nothing_are_refused(name: str, wanted: str) -> None:
    with pytest.raises(ValidationError, match=f"{name} does nothing without {wanted}"):
        MalConfig.model_validate({name: 64})


def test_a_soft_target_on_a_canvas_grid_keeps_its_place() -> None:
    """The reading that targets rely on: a box of ones lands on the middle half of a canvas with half a side around."""
    plane = resample(np.ones((8, 8), np.float32), Grid(10, 10, 1, 1, 8, 8), Grid(6, 6, 1, 1, 16, 16))
    assert plane[4:12, 4:12].min() == 1
    assert plane.sum() == 64
