"""`doctor`: what it finds wrong with a machine or a run, and how it ends."""

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import pseudolabel.pipelines.doctor.machine as machine
import pseudolabel.pipelines.doctor.patient as patient
from pseudolabel.cli.main import main
from pseudolabel.errors import ConfigError, InputError, MachineError, StaleOutputError
from pseudolabel.pipelines.api import Run
from pseudolabel.pipelines.chain import parse_chain, plan_lines
from pseudolabel.pipelines.doctor import system
from pseudolabel.pipelines.doctor.checks import Check
from pseudolabel.pipelines.doctor.doctor import check_health, examine, format_checks
from pseudolabel.pipelines.doctor.machine import machine_checks
from pseudolabel.pipelines.doctor.patient import data_checks, run_checks
from pseudolabel.pipelines.forecast import COSTS, Size, size_of_plan, stage_forecast
from pseudolabel.pipelines.options.look import DoctorConfig
from pseudolabel.pipelines.planning.plan import read_plan
from pseudolabel.pipelines.run.commit import read_footer
from pseudolabel.pipelines.run.paths import RunPaths
from pseudolabel.pipelines.tools.add_candidates import write_candidates
from pseudolabel.siseg.config import SisegCard
from pseudolabel.siseg.model import new_network
from pseudolabel.teachers.mal.infer import FIRST_VIEWS, MOST_VIEWS
from tests.look.made_runs import Made, MadeRun, make_run, many


def made_in(folder: Path) -> MadeRun:
    objects = [Made((0, 0, 80, 60), "disc"), Made((5, 5, 9, 30), "star"), Made((5, 5, 9, 30), "star"), *many(30)]
    return make_run(folder, {"a.png": objects, "b.png": []})


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> MadeRun:
    return made_in(tmp_path_factory.mktemp("doctor"))


def found(run: RunPaths) -> dict[str, Any]:
    return {check.name: check for check in run_checks(run)}


def test_every_check_of_the_machine_says_what_to_do_where_it_is_not_well() -> None:
    checks = list(machine_checks())
    assert {"torch", "onnxruntime", "processors", "memory", "numba's cache", "extra ray"} <= {
        one.name for one in checks
    }
    assert all(bool(one.todo) == (one.state != "ok") for one in checks)
    assert any("CPUExecutionProvider works" in one.found for one in checks)


def test_a_folder_that_cannot_be_written_fails(tmp_path: Path) -> None:
    check = machine.disk(tmp_path / "none", "disk", 1)
    assert (check.state, check.name) == ("fail", "disk")
    full = machine.disk(tmp_path, "disk", shutil.disk_usage(tmp_path).total)
    assert full.state == "warn"
    assert machine.disk(tmp_path, "disk", 0).state == "ok"


@pytest.mark.parametrize(
    ("before", "state", "said"),
    [
        pytest.param("", "ok", "/made/", id="a folder that can be made"),
        pytest.param("import numba.core.caching as c; c.CacheImpl._locator_classes = []", "fail", "", id="nowhere"),
    ],
)
def test_the_place_of_numba_s_cache_is_told_or_that_there_is_none(
    before: str, state: str, said: str, tmp_path: Path
) -> None:
    """In a process of its own: numba settles it when a module is imported."""
    asked = "from pseudolabel.pipelines.doctor.machine import _numba_cache as check; import json"
    code = f"{before}\n{asked}\nprint(json.dumps(check().as_dict()))"
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path / "made")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    check = json.loads(done.stdout)
    assert (check["state"], said in check["found"]) == (state, True)
    assert "NUMBA_CACHE_DIR" in check["todo"] or state == "ok"


@pytest.mark.parametrize(
    ("there", "state", "found"),
    [
        pytest.param((), "ok", "no sbatch, squeue, scontrol here", id="none"),
        pytest.param(("sbatch", "scontrol"), "warn", "no squeue here", id="one is missing"),
        pytest.param(("sbatch", "squeue", "scontrol"), "ok", "sbatch, squeue, scontrol", id="all"),
    ],
)
def test_slurm_s_commands_are_looked_for_one_by_one(
    there: tuple[str, ...], state: str, found: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for command in there:
        (tmp_path / command).touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    check = machine._slurm()
    assert (check.state, check.found.partition(";")[0]) == (state, found)


def test_the_version_of_the_driver_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "version"
    file.write_text(
        "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.86.15  Release Build  (buildd)\n"
        "GCC version:  gcc version 11.4.0 (Ubuntu 11.4.0-1ubuntu1~22.04)\n"
    )
    monkeypatch.setattr(system, "NVIDIA_DRIVER", file)
    assert (system.cuda_driver() or "").startswith("570.86.15, ")
    monkeypatch.setattr(system, "NVIDIA_DRIVER", tmp_path / "none")
    assert system.cuda_driver() is None


def test_the_hub_s_cache_is_told_and_that_its_client_is_offline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    check = machine._hub_cache()
    assert check.found == f"{tmp_path / 'hub'}: can be written; HF_HUB_OFFLINE: nothing can be fetched"


def test_what_doctor_says_of_an_encoder_s_weights_the_training_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("pseudolabel.encoders.resolve.find_on_hub", _nothing_on_hub)
    advice = {one.name: one.todo for one in machine_checks()}
    assert "none to start from chance" in advice["train-student"]
    assert "none" not in advice["train-siseg"]
    with pytest.raises(ConfigError, match="needs weights"):
        new_network(SisegCard(backbone="mobilenet_v2"), "none")


def _nothing_on_hub(backbone: str, *, fetch: bool) -> str:
    raise InputError(f"{backbone} is not there")


def test_a_sound_run_has_nothing_that_failed(made: MadeRun) -> None:
    checks = found(made.paths)
    assert not [one for one in checks.values() if one.state == "fail"]
    assert checks["pseudo"].found == "2 of 2 shards"
    assert checks["images"].found == "2 of 2 opened"


def test_a_box_is_tiny_where_a_mask_was_hardly_better_than_it(tmp_path: Path) -> None:
    """Below 6 px, on both development sets; nuclei of 6 to 12 px have masks of 0.89 in boxes of 0.77."""
    run = make_run(tmp_path, {"a.png": [Made((0, 0, 6, 6), "disc"), Made((20, 0, 30, 5), "disc"), *many(7)]}).paths
    check = found(run)["tiny boxes"]
    assert (check.state, check.found) == ("ok", "1 of 9")


def test_troubles_of_the_boxes_are_counted(made: MadeRun) -> None:
    checks = found(made.paths)
    assert checks["boxes given twice"].state == "warn"
    assert checks["whole images"].found == "1 of 33"
    assert checks["without boxes"].found == "1 of 2"


def test_a_damaged_part_fails_and_says_which_command_mends_it(tmp_path: Path) -> None:
    run = made_in(tmp_path).paths
    part = run.part("pseudo", 0, 2)
    data = bytearray(part.read_bytes())
    data[-20] ^= 1
    part.write_bytes(data)
    check = found(run)["pseudo"]
    assert check.state == "fail"
    assert f"pseudolabel fuse {run.root}" in check.todo


def test_what_a_refusal_and_doctor_say_to_type_has_the_options_and_works(tmp_path: Path) -> None:
    made_in(tmp_path)
    run = Run.create(tmp_path / "own", images=tmp_path / "images", boxes=tmp_path / "boxes.json")
    run.step("infer-colors", engine="inline").step("fuse", engine="inline")
    changed = ["--exclusive", "all", "--no-upright"]
    refused = CliRunner().invoke(main, ["fuse", str(run.paths.root), *changed, "--engine", "inline"])
    assert isinstance(refused.exception, StaleOutputError)
    program, *typed = shlex.split(str(refused.exception).rpartition("To make them again:  ")[2])
    assert program == "pseudolabel"
    assert CliRunner().invoke(main, [*typed, "--engine", "inline"]).exit_code == 0
    assert read_footer(run.paths.part("pseudo", 0, 1)).config["exclusive"] == "all"
    run.paths.part("pseudo", 0, 1).write_bytes(b"damaged")
    program, *typed = shlex.split(found(run.paths)["pseudo"].todo.removesuffix(" makes them again"))
    result = CliRunner().invoke(main, [*typed, "--engine", "inline"])
    assert result.exit_code == 0, result.output
    assert read_footer(run.paths.part("pseudo", 0, 1)).config["upright"] is False


def test_a_damaged_table_that_somebody_brought_is_to_be_brought_again(tmp_path: Path) -> None:
    made = made_in(tmp_path)
    write_candidates(made.paths, "own", made.truth)
    for part in made.paths.table("candidates/own").glob("part-*.parquet"):
        part.write_bytes(b"damaged")
    todo = found(made.paths)["candidates/own"].todo
    assert todo == f"pseudolabel add-candidates {made.paths.typed} --name own --masks FILE makes them again"
    typed = shlex.split(todo.removesuffix(" makes them again").replace("FILE", shlex.quote(str(made.truth))))
    result = CliRunner().invoke(main, typed[1:])
    assert result.exit_code == 0, result.output
    assert found(made.paths)["candidates/own"].state == "ok"


def test_images_that_are_gone_fail(tmp_path: Path) -> None:
    made = made_in(tmp_path)
    os.remove(tmp_path / "images" / "a.png")
    check = found(made.paths)["images"]
    assert check.state == "fail"
    assert "1 of 2 cannot be opened, such as a.png" in check.found
    assert str(tmp_path / "images") in check.todo


def test_a_missing_shard_is_to_be_made(tmp_path: Path) -> None:
    run = made_in(tmp_path).paths
    run.part("candidates/colors", 1, 2).unlink(missing_ok=True)
    run.part("candidates/colors", 0, 2).unlink(missing_ok=True)
    run.part("pseudo", 1, 2).unlink()
    assert found(run)["pseudo"].state == "warn"


def test_what_is_not_done_is_foreseen(made: MadeRun) -> None:
    checks = found(made.paths)
    assert "fuse" not in {name.removeprefix("to do: ") for name in checks}
    expected = stage_forecast("infer-semantic", Size(2, 33, 2))
    assert checks["to do: infer-semantic"].found == str(expected)
    assert checks["room for these"].state == "ok"


def test_an_infer_teacher_is_foreseen_with_the_further_looks_at_boxes_that_overlap(tmp_path: Path) -> None:
    near = [Made((0, 0, 20, 20), "disc"), Made((10, 10, 20, 20), "disc")]
    apart = [Made((40, 0, 10, 10), "disc"), Made((60, 30, 10, 10), "disc"), Made((40, 30, 10, 10), "disc")]
    run = make_run(tmp_path, {"a.png": near + apart, "b.png": near}).paths
    checks = found(run)
    assert checks["to do: infer-teacher"].found == str(stage_forecast("infer-teacher", Size(2, 7, 2, crowded=4)))
    assert size_of_plan(run, read_plan(run)).crowded == 4
    counts = {one.name: one for one in data_checks(str(tmp_path / "images"), tmp_path / "boxes.json")}
    assert counts["to do: infer-teacher"].found == str(stage_forecast("infer-teacher", Size(2, 7, 1, crowded=4)))
    cost = COSTS["infer-teacher"]
    assert cost.crowded_s == pytest.approx(cost.box_s * FIRST_VIEWS / MOST_VIEWS, rel=0.05)


def test_what_is_foreseen_of_trainings_is_what_a_dry_run_says(made: MadeRun) -> None:
    """Word for word, for every step that doctor foresees, with defaults and with the preset for a CPU."""
    checks = found(made.paths)
    asked: dict[str, dict[str, Any]] = {
        "train-siseg": {},
        "train-teacher": {},
        "train-student": {},
        "infer-teacher": {},
    }
    usual = parse_chain({"run": str(made.paths.root), **asked}, where="test")
    small = parse_chain(
        {"run": str(made.paths.root), "train-teacher": {"preset": "small"}, "train-student": {"preset": "small"}},
        where="test",
    )
    said = _taken(plan_lines(usual))
    said_small = _taken(plan_lines(small))
    assert set(said) == set(asked)
    for name, text in said.items():
        with_preset = f"; with --preset small {said_small[name]}" if name in said_small else ""
        assert checks[f"to do: {name}"].found == text + with_preset


def _taken(lines: list[str]) -> dict[str, str]:
    """What a dry run says of each step."""
    return {line.partition(":")[0]: line.rpartition("; ")[2] for line in lines if "; about " in line}


def test_a_training_that_is_done_is_not_foreseen(tmp_path: Path) -> None:
    run = made_in(tmp_path).paths
    run.model("teacher").parent.mkdir()
    run.model("teacher").touch()
    checks = found(run)
    assert "to do: train-teacher" not in checks
    assert "to do: train-student" in checks


def test_what_failed_ends_the_command_with_4(tmp_path: Path) -> None:
    checks = examine(DoctorConfig(run=tmp_path / "none"))
    with pytest.raises(MachineError, match="failed: run") as caught:
        check_health(checks, DoctorConfig())
    assert caught.value.exit_code == 4
    assert "FAIL  run" in format_checks(checks)
    check_health([one for one in checks if one["state"] != "fail"], DoctorConfig())


def test_the_command_looks_at_the_machine_alone_or_at_a_run_too(made: MadeRun) -> None:
    alone = CliRunner().invoke(main, ["doctor", "--json"])
    assert alone.exit_code == 0, alone.output
    with_run = CliRunner().invoke(main, ["doctor", str(made.paths.root), "--json"])
    names = [{one["name"] for one in json.loads(result.output)} for result in (alone, with_run)]
    assert "manifest" in names[1] - names[0]


def test_data_without_a_run_are_looked_at_and_foreseen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patient, "_SAMPLE", 1)
    make_run(tmp_path, {"a.png": many(10), "b.png": many(10)})
    checks = {one.name: one for one in data_checks(str(tmp_path / "images"), tmp_path / "boxes.json")}
    assert checks["data"].found.startswith("2 images with 20 boxes, 1 shards, of coco:")
    assert checks["data"].found.endswith("; 1 images were opened")
    assert checks["to do: shard"].found == str(stage_forecast("shard", Size(2, 20, 1)))
    assert "to do: train-teacher" in checks
    assert not [one for one in checks.values() if one.state == "fail"]


def test_data_that_shard_would_refuse_fail(tmp_path: Path) -> None:
    (tmp_path / "boxes.json").write_text("{}")
    (check,) = data_checks(str(tmp_path), tmp_path / "boxes.json")
    assert (check.name, check.state) == ("data", "fail")
    assert "images" in check.found


def test_a_file_of_annotations_is_asked_for_its_images(tmp_path: Path) -> None:
    file = tmp_path / "my boxes.json"
    file.write_text("{}")
    check = next(Check(**one) for one in examine(DoctorConfig(run=file)) if one["name"] == "run")
    assert check.state == "fail"
    assert f"pseudolabel doctor '{file}' --images DIR" in check.todo
