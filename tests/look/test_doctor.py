"""`doctor`: what it finds wrong with a machine or a run, and how it ends."""

import json
import logging
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

import pseudolabel.pipelines.doctor.machine as machine
import pseudolabel.pipelines.doctor.patient as patient
from pseudolabel.cli.main import main
from pseudolabel.errors import MachineError
from pseudolabel.pipelines.chain import parse_chain, plan_lines
from pseudolabel.pipelines.doctor import system
from pseudolabel.pipelines.doctor.checks import Check
from pseudolabel.pipelines.doctor.classes import BoxesOf, asked_segmenter
from pseudolabel.pipelines.doctor.doctor import check_health, examine, format_checks
from pseudolabel.pipelines.doctor.machine import machine_checks
from pseudolabel.pipelines.doctor.patient import data_checks, run_checks
from pseudolabel.pipelines.forecast import Size, stage_forecast
from pseudolabel.pipelines.options.look import DoctorConfig
from pseudolabel.pipelines.options.stages.infer_semantic import InferSemanticConfig
from pseudolabel.pipelines.run.paths import RunPaths
from pseudolabel.pipelines.run.stage_config import SavedConfig, save_config
from pseudolabel.pipelines.runner import RunOptions
from pseudolabel.pipelines.steps import make_step
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


def test_a_sound_run_has_nothing_that_failed(made: MadeRun) -> None:
    checks = found(made.paths)
    assert not [one for one in checks.values() if one.state == "fail"]
    assert checks["pseudo"].found == "2 of 2 shards"
    assert checks["images"].found == "2 of 2 opened"


def test_troubles_of_the_boxes_are_counted(made: MadeRun) -> None:
    checks = found(made.paths)
    assert checks["boxes given twice"].state == "warn"
    assert checks["whole images"].found == "1 of 33"
    assert checks["without boxes"].found == "1 of 2"
    tiny = sum(min(one.box_xywh[2:]) < 12 for one in many(30)) + 2
    assert checks["tiny boxes"].found == f"{tiny} of 33"


def test_rare_classes_are_named(tmp_path: Path) -> None:
    images = {"a.png": [Made((5, 5, 20, 20), "common")] * 12 + [Made((9, 9, 20, 20), "rare")]}
    check = found(make_run(tmp_path, images, shards=1).paths)["classes"]
    assert check.state == "warn"
    assert check.found == "2 with boxes, 0 without: common 12, rare 1; 1 with fewer than 10"
    assert check.todo.endswith(": rare 1")


def test_a_damaged_part_fails_and_says_which_command_mends_it(tmp_path: Path) -> None:
    run = made_in(tmp_path).paths
    part = run.part("pseudo", 0, 2)
    data = bytearray(part.read_bytes())
    data[-20] ^= 1
    part.write_bytes(data)
    check = found(run)["pseudo"]
    assert check.state == "fail"
    assert f"pseudolabel fuse {run.root}" in check.todo


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


def voc(folder: Path, **more: Any) -> InferSemanticConfig:
    (folder / "labels").mkdir(exist_ok=True)
    return InferSemanticConfig(model=f"labels:{folder / 'labels'}", label_format="voc", **more)


def boxes_of(**counts: int) -> BoxesOf:
    """Categories 1, 2, ... with so many boxes."""
    numbered = list(enumerate(counts.items(), 1))
    names = {number: name for number, (name, _) in numbered}
    return BoxesOf(names, Counter({number: count for number, (_, count) in numbered}))


def test_classes_and_boxes_that_a_segmenter_knows_are_counted(tmp_path: Path) -> None:
    """Person and Potted-Plant are VOC's, cup and fork are not; no box is a kite, so that it is not named."""
    known = boxes_of(person=7, cup=3, potted_Plant=2, fork=4, kite=0)
    opened, check = asked_segmenter(voc(tmp_path), known, RunPaths(tmp_path / "mine"))
    assert (opened.name, opened.state) == ("segmenter", "ok")
    assert opened.found.endswith(": 21 classes, works on the CPU")
    assert check.state == "warn"
    assert check.found == (
        "2 of 5 categories and 9 of 16 boxes have a class of the segmenter, by identical names; none for fork 4, cup 3"
    )
    assert "from box and colours alone" in check.todo
    assert check.todo.endswith(f"  pseudolabel train-teacher {tmp_path / 'mine'}")


def test_of_many_unknown_classes_the_most_frequent_are_named(tmp_path: Path) -> None:
    known = boxes_of(person=1, **{f"thing{number}": number for number in range(1, 9)})
    _, check = asked_segmenter(voc(tmp_path), known)
    assert check.found.endswith("; none for thing8 8, thing7 7, thing6 6, thing5 5, thing4 4, ... (3 more)")


@pytest.mark.parametrize(
    ("options", "counts", "state", "said"),
    [
        pytest.param({}, {"person": 3, "kite": 0}, "ok", "", id="all boxes known"),
        pytest.param({}, {"nucleus": 3}, "warn", "pseudolabel infer-colors RUN; ", id="none known"),
        pytest.param(
            {"unknown_classes": "none"}, {"person": 1, "cup": 3}, "warn", "--unknown-classes colors", id="no candidates"
        ),
        pytest.param({"masks": "region"}, {"person": 1, "cup": 3}, "warn", "no candidates", id="bare regions"),
        pytest.param({"name": "second"}, {"person": 1, "cup": 3}, "ok", "", id="a further segmenter"),
    ],
)
def test_what_becomes_of_unknown_classes_is_said(
    options: dict[str, Any], counts: dict[str, int], state: str, said: str, tmp_path: Path
) -> None:
    _, check = asked_segmenter(voc(tmp_path, **options), boxes_of(**counts))
    assert (check.state, said in check.todo) == (state, True)


def test_a_segmenter_that_does_not_open_fails_in_the_words_of_infer_semantic(tmp_path: Path) -> None:
    (check,) = asked_segmenter(InferSemanticConfig(model=str(tmp_path / "none.onnx")), boxes_of(person=1))
    assert (check.name, check.state) == ("segmenter", "fail")
    assert "no model card" in check.found


def test_a_run_s_segmenter_is_matched_as_its_stage_matched_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The line of the stage's log and doctor's agree; the folder of label maps may be gone by then."""
    images = {"a.png": [Made((5, 5, 20, 20), "Person"), Made((30, 9, 20, 20), "cup"), Made((9, 30, 20, 20), "cup")]}
    made = make_run(tmp_path, images, shards=1)
    shutil.rmtree(made.paths.table("candidates/colors"))
    config = voc(tmp_path)
    Image.fromarray(np.zeros((60, 80), np.uint8)).save(tmp_path / "labels" / "a.png")
    caplog.set_level(logging.INFO, "pseudolabel")
    list(make_step("infer-semantic", config).run(made.paths, RunOptions("inline", overwrite=True)))
    shutil.rmtree(tmp_path / "labels")
    assert "1 of 2 categories matched by identical names" in caplog.messages
    check = found(made.paths)["class map"]
    assert check.found.startswith(
        "1 of 2 categories and 1 of 3 boxes have a class of the segmenter, by identical names"
    )
    assert check.found.endswith("; none for cup 2")
    assert check.state == "warn"
    (made.paths.table("candidates/teacher") / "part-00000-of-00001.parquet").parent.mkdir()
    (made.paths.table("candidates/teacher") / "part-00000-of-00001.parquet").touch()
    check = found(made.paths)["class map"]
    assert (check.state, check.found.endswith("; none for cup 2: left to teacher")) == ("ok", True)
    assert "segmenter" not in found(made.paths)


def test_before_there_are_label_maps_the_recorded_model_is_asked(tmp_path: Path) -> None:
    made = make_run(tmp_path, {"a.png": [Made((5, 5, 20, 20), "person")]}, shards=1)
    config = voc(tmp_path).model_dump(mode="json")
    save_config(made.paths, SavedConfig("infer-semantic", "semantic", "cpu", config, {}))
    checks = found(made.paths)
    assert checks["class map"].found.startswith("1 of 1 categories and 1 of 1 boxes")
    shutil.rmtree(tmp_path / "labels")
    assert found(made.paths)["segmenter"].state == "fail"


def test_a_segmenter_is_tried_on_data_on_a_run_and_alone(made: MadeRun, tmp_path: Path) -> None:
    (tmp_path / "labels").mkdir()
    asked = ["--model", f"labels:{tmp_path / 'labels'}", "--label-format", "voc", "--json"]
    images, boxes = made.paths.root.parent / "images", made.paths.root.parent / "boxes.json"
    for typed in ([str(boxes), "--images", str(images)], [str(made.paths.root)], []):
        result = CliRunner().invoke(main, ["doctor", *typed, *asked])
        assert result.exit_code == 0, result.output
        checks = {one["name"]: one for one in json.loads(result.output)}
        assert checks["segmenter"]["found"].endswith(": 21 classes, works on the CPU")
        assert ("class map" in checks) == bool(typed)


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


def test_classes_are_counted_over_all_data_though_a_sample_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patient, "_SAMPLE", 1)
    cup, fork = Made((5, 5, 20, 20), "cup"), Made((30, 30, 20, 20), "fork")
    make_run(tmp_path, {"a.png": [cup] * 7, "b.png": [cup] * 5 + [fork] * 11})
    checks = {one.name: one for one in data_checks(str(tmp_path / "images"), tmp_path / "boxes.json", voc(tmp_path))}
    assert checks["classes"].found == "2 with boxes, 0 without: cup 12, fork 11"
    assert "0 of 2 categories and 0 of 23 boxes have a class" in checks["class map"].found


def test_crowds_and_pictures_turned_by_exif_are_counted(tmp_path: Path) -> None:
    """Two images, one of them stored on its side; three objects and two crowds, one of whose classes is a crowd's."""
    for name, orientation in (("a.jpg", 1), ("b.jpg", 6)):
        exif = Image.Exif()
        exif[0x0112] = orientation
        Image.new("RGB", (80, 60), "gray").save(tmp_path / name, exif=exif)
    given = [(1, 1, 0), (1, 1, 0), (1, 2, 0), (1, 1, 1), (2, 3, 1)]  # image, category, crowd
    annotations = [
        {"id": number, "image_id": image, "category_id": category, "bbox": [5 * number, 9, 20, 20], "iscrowd": crowd}
        for number, (image, category, crowd) in enumerate(given, 1)
    ]
    content = {
        "images": [
            {"id": 1, "file_name": "a.jpg", "width": 80, "height": 60},
            {"id": 2, "file_name": "b.jpg", "width": 60, "height": 80},
        ],
        "annotations": annotations,
        "categories": [{"id": number, "name": name} for number, name in enumerate(("person", "cup", "fork"), 1)],
    }
    (tmp_path / "boxes.json").write_text(json.dumps(content))
    checks = {one.name: one for one in data_checks(str(tmp_path), tmp_path / "boxes.json", voc(tmp_path))}
    assert checks["turned by EXIF"].found == "1 of 2"
    assert checks["crowd regions"].found == "2 of 5"
    assert checks["classes"].found.startswith("2 with boxes, 1 without: person 2, cup 1; ")
    assert checks["class map"].found == (
        "1 of 3 categories and 2 of 3 boxes have a class of the segmenter, by identical names; none for cup 1"
    )


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
