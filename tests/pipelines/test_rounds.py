"""Self-training: the student of a round is one source of candidates of the next, in a run folder of its own."""

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from click.testing import CliRunner

from pseudolabel.cli.run import run as run_command
from pseudolabel.errors import ConfigError, InputError
from pseudolabel.pipelines.chain import parse_chain, plan_lines, run_chain
from pseudolabel.pipelines.demo.scenes import write_dataset
from pseudolabel.pipelines.engines.base import EngineOptions
from pseudolabel.pipelines.rounds import begin_round, format_rounds, with_gains
from pseudolabel.pipelines.run.commit import read_part
from pseudolabel.pipelines.run.paths import RunPaths
from pseudolabel.pipelines.runner import RunOptions
from pseudolabel.pipelines.stages.infer_teacher import InferTeacherConfig, InferTeacherStage
from tests.quick import TEACHER

STUDENT = {
    "backbone": "tiny",
    "backbone_weights": "none",
    "width": 40,
    "convs": 1,
    "image_px": 96,
    "epochs": 1.0,
    "batch_size": 2,
    "device": "cpu",
}
INLINE = RunOptions(EngineOptions(name="inline"))


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rounds")
    write_dataset(folder, 3, 0, size_hw=(96, 96))
    return folder


def run_file(folder: Path, **changes: Any) -> dict[str, Any]:
    return {
        "run": str(folder / "run"),
        "shard": {"images": str(folder / "images"), "annotations": str(folder / "boxes.json"), "shards": 1},
        "train-teacher": TEACHER,
        "infer-teacher": {"per_box": 2},
        "fuse": {"refine": "none"},
        "train-student": {**STUDENT, "validation": str(folder / "instances.json")},
        "evaluate": {"ground_truth": str(folder / "instances.json")},
        **changes,
    }


@pytest.fixture(scope="module")
def summaries(folder: Path) -> list[dict[str, Any]]:
    return list(run_chain(parse_chain(run_file(folder, rounds=2), where="test"), INLINE))


def test_a_second_round_infers_fuses_trains_and_measures_again(summaries: list[dict[str, Any]]) -> None:
    second = [summary["stage"] for summary in summaries if summary.get("round") == 2]
    assert second == ["infer-teacher", "fuse", "train-student", "evaluate"]
    assert summaries[-1]["stage"] == "rounds"


def test_the_gain_of_a_round_is_its_figure_less_that_of_the_round_before(summaries: list[dict[str, Any]]) -> None:
    figures = [summary["figures"] for summary in summaries if summary["stage"] == "evaluate"]
    first, second = summaries[-1]["rounds"]
    assert (first["round"], second["round"]) == (1, 2)
    assert first["mean_iou"] == figures[0]["mean_iou"]
    assert second["gain_mean_iou"] == pytest.approx(figures[1]["mean_iou"] - figures[0]["mean_iou"])
    assert {"validation_ap", "gain_validation_ap"} <= set(second)


def test_the_student_is_a_source_of_the_second_round_alone(folder: Path, summaries: list[dict[str, Any]]) -> None:
    run = RunPaths(folder / "run")
    assert run.candidate_tables() == ("candidates/teacher",)
    assert run.round(2).candidate_tables() == ("candidates/student", "candidates/teacher")
    rows = read_part(run.round(2).part("candidates/student", 0, 1)).to_pylist()
    assert {row["source"] for row in rows} == {"student"}
    own = run.part("candidates/teacher", 0, 1).read_bytes()
    assert run.round(2).part("candidates/teacher", 0, 1).read_bytes() == own


def test_rounds_that_are_done_are_not_done_again(folder: Path, summaries: list[dict[str, Any]]) -> None:
    students = [run.model("student").stat().st_mtime_ns for run in _runs(folder)]
    again = list(run_chain(parse_chain(run_file(folder, rounds=2), where="test"), INLINE))
    assert [run.model("student").stat().st_mtime_ns for run in _runs(folder)] == students
    assert sum(summary.get("attempted", 0) for summary in again) == 0
    assert again[-1] == summaries[-1]


def _runs(folder: Path) -> list[RunPaths]:
    return [RunPaths(folder / "run"), RunPaths(folder / "run").round(2)]


def test_a_round_follows_inputs_that_were_made_again(tmp_path: Path) -> None:
    first = RunPaths(tmp_path)
    for path in (first.plan, first.part("plan", 0, 1), first.part("manifest", 0, 1), first.part("candidates/a", 0, 1)):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("old")
    begin_round(first, 2)
    new = tmp_path / "new"
    new.write_text("new")
    new.replace(first.part("candidates/a", 0, 1))
    second = begin_round(first, 2)
    assert second.part("candidates/a", 0, 1).read_text() == "new"
    assert second.part("manifest", 0, 1).read_text() == "old"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        pytest.param({"rounds": 0}, "from 1 on", id="none"),
        pytest.param({"rounds": True}, "from 1 on", id="a truth value"),
        pytest.param({"rounds": "two"}, "'two'", id="a word"),
        pytest.param(
            {"rounds": 2, "train-student": {"learn_from": "other.json"}}, "same labels", id="labels elsewhere"
        ),
    ],
)
def test_rounds_that_make_no_sense_are_refused(folder: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_chain(run_file(folder, **changes), where="test")


def test_rounds_without_a_student_are_refused(folder: Path) -> None:
    values = run_file(folder, rounds=2)
    del values["train-student"]
    with pytest.raises(ConfigError, match="train-student: who should teach"):
        parse_chain(values, where="test")


def test_a_dry_run_names_the_folder_of_every_further_round(folder: Path) -> None:
    lines = plan_lines(parse_chain(run_file(folder, rounds=3), where="test"))
    assert [line for line in lines if line.startswith("round ")] == [
        f"round 2: in {folder / 'run' / 'rounds' / '2'}",
        f"round 3: in {folder / 'run' / 'rounds' / '3'}",
    ]


def test_the_option_of_run_stands_above_the_file(folder: Path) -> None:
    file = folder / "rounds.yaml"
    file.write_text(yaml.safe_dump(run_file(folder, run=str(folder / "other"), rounds=5)))
    result = CliRunner().invoke(run_command, [str(file), "--rounds", "2", "--dry-run"], catch_exceptions=False)
    assert result.output.count("round ") == 1
    assert f"round 2: in {folder / 'other' / 'rounds' / '2'}" in result.output


@pytest.mark.parametrize(
    ("given", "model"), [(None, "teacher"), (Path("student"), "student")], ids=["nothing said", "student"]
)
def test_infer_teacher_finds_the_run_s_own_models(tmp_path: Path, given: Path | None, model: str) -> None:
    run = RunPaths(tmp_path)
    run.model(model).parent.mkdir()
    run.model(model).touch()
    assert InferTeacherStage(InferTeacherConfig(weights=given), run).weights()["teacher"] == run.model(model)


def test_infer_teacher_without_a_trained_teacher_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="train it with  pseudolabel train-teacher"):
        InferTeacherStage(InferTeacherConfig(), RunPaths(tmp_path)).weights()


def test_gains_are_shown_with_their_sign() -> None:
    rounds = with_gains([{"round": 1, "mean_iou": 0.5, "ap": 0.25}, {"round": 2, "mean_iou": 0.75, "ap": 0.125}])
    assert rounds[1] == {"round": 2, "mean_iou": 0.75, "ap": 0.125, "gain_mean_iou": 0.25, "gain_ap": -0.125}
    assert format_rounds(rounds) == (
        "round 1: mean_iou 0.500, ap 0.250\nround 2: mean_iou 0.750 (+0.250), ap 0.125 (-0.125)"
    )
