"""The script for a day with a GPU, in miniature on the CPU."""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

SCRIPTS = Path(__file__).parents[1] / "benchmarks"
TINY = {"backbone": "tiny", "channels": 32, "convs": 1, "mask_branch_channels": 32, "learning_rate": 2e-3, "ema": 0.9}


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch) -> dict[str, ModuleType]:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import box_teachers
    import gpu_day
    import gpu_modules
    import gpu_stages

    return {module.__name__: module for module in (box_teachers, gpu_day, gpu_modules, gpu_stages)}


def _course(scripts: dict[str, ModuleType], folder: Path, **changes: Any) -> Any:
    small = {"warm_steps": 2, "steps": 2, "batch_size": 2, "short_px": 96, "window_px": 64, "train": 3, "val": 1}
    return scripts["gpu_modules"].Course("cpu", str(folder), shape=tuple(TINY.items()), **(small | changes))


def test_settings_of_a_seed_go_on_from_one_warm_start_and_are_measured(
    scripts: dict[str, ModuleType], tmp_path: Path
) -> None:
    modules, course = scripts["gpu_modules"], _course(scripts, tmp_path)
    modules.module_row(course, modules.WARM, 0)
    warm = (tmp_path / "warm-0.pt").read_bytes()
    rows = [modules.module_row(course, setting, 0) for setting in ("boxinst", "boxseg")]
    assert (tmp_path / "warm-0.pt").read_bytes() == warm
    for row in rows:
        assert 0 < row["mean_iou"] < 1
        assert {"ap", "ap_any_class", "box_ap_any_class", "class_right"} <= row.keys()
    assert [path.name for path in tmp_path.iterdir()] == ["warm-0.pt"]  # checkpoints of what is done are gone


def test_rows_of_an_earlier_commit_say_so_when_a_table_grows(scripts: dict[str, ModuleType], tmp_path: Path) -> None:
    teachers, out = scripts["box_teachers"], tmp_path / "table.json"
    arguments = argparse.Namespace(gpu=False, steps=1, batch_size=1, short_px=96, change="{}", set="drawn", out=out)
    on = teachers.Table(argparse.Namespace(**vars(arguments) | {"out": None})).on
    rows = [{"setting": "projection", "seed": 0}, {"setting": "boxinst", "seed": 0, "commit": "second"}]
    out.write_text(json.dumps({"on": on, "commit": "first", "rows": rows}))
    assert [row["commit"] for row in teachers.Table(arguments).rows] == ["first", "second"]


def test_a_perfect_detector_has_perfect_figures(scripts: dict[str, ModuleType], tmp_path: Path) -> None:
    modules, course = scripts["gpu_modules"], _course(scripts, tmp_path)
    data = modules.drawn(course)
    objects = [row for picture in data.val for row in picture.objects]
    assert modules.box_row(course)["n"] == len(objects)
    own = [
        modules.Prediction(k, row.image_id, row.category_id % 5 + 1, row.mask, 1.0, None)
        for k, row in enumerate(objects)
    ]
    found = scripts["box_teachers"].ap_figures(objects, own)
    assert found["ap_any_class"] == pytest.approx(1.0)
    assert found["ap"] < 0.5  # every class is wrong
    assert found["class_right"] == 0.0


def test_what_a_module_brings_is_told_seed_by_seed(scripts: dict[str, ModuleType]) -> None:
    base = {"ap": 0.0, "ap_any_class": 0.0, "box_ap_any_class": 0.0}
    rows = [
        {"setting": "boxinst", "seed": 0, "mean_iou": 0.50, **base},
        {"setting": "boxinst", "seed": 1, "mean_iou": 0.60, **base},
        {"setting": "boxteacher", "seed": 0, "mean_iou": 0.54, **base},
        {"setting": "boxteacher", "seed": 1, "mean_iou": 0.66, **base},
        {"setting": "boxteacher", "seed": 2, "mean_iou": 0.99, **base},  # nothing to compare it with
    ]
    (gain,) = [row for row in scripts["gpu_modules"].gains(rows) if row["setting"] == "boxteacher"]
    assert gain["seeds"] == 2
    assert (gain["mean_iou"], gain["mean_iou_least"], gain["mean_iou_most"]) == pytest.approx((0.05, 0.04, 0.06))


STAGES = ["infer_semantic", "infer_teacher_mal", "infer_teacher_condinst", "train_mal", "train_boxseg", "train_student",
          "predict", "mask_head", "upsampling", "pairwise_loss", "random_walk"]  # fmt: skip


def test_every_stage_is_tested(scripts: dict[str, ModuleType]) -> None:
    assert list(scripts["gpu_stages"].STAGES) == STAGES


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_gives_its_row(scripts: dict[str, ModuleType], stage: str) -> None:
    stages = scripts["gpu_stages"]
    row = stages.STAGES[stage](stages.Size.small("cpu"))
    assert all(value > 0 for name, value in row.items() if name.endswith("_s"))
    assert row.get("max_abs_diff", 0.0) < 1e-4


def test_rows_that_are_there_are_kept_and_another_setting_is_refused(
    scripts: dict[str, ModuleType], tmp_path: Path
) -> None:
    path = tmp_path / "rows.json"
    table = scripts["gpu_day"].Table(path, "this", [0], lambda row: row["stage"])
    table.add({"stage": "a", "ratio": 1.0})
    again = scripts["gpu_day"].Table(path, "this", [0], lambda row: row["stage"])
    assert again.made() == {"a"}
    again.add({"stage": "a", "ratio": 2.0})
    assert [row["ratio"] for row in json.loads(path.read_text())["rows"]] == [2.0]
    with pytest.raises(SystemExit, match="another setting"):
        scripts["gpu_day"].Table(path, "that", [0], lambda row: row["stage"])


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_script_stops_in_time_goes_on_and_says_when_it_is_done(tmp_path: Path) -> None:
    command = [sys.executable, SCRIPTS / "gpu_day.py", "--small", "--device", "cpu", "--steps", "2", "--seeds", "0",
               "--jobs", "1", "--parts", "modules", "--out", tmp_path / "out", "--scratch", tmp_path]  # fmt: skip

    def said(minutes: str) -> str:
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [*command, "--minutes", minutes], check=True, capture_output=True, text=True, env=environment
        )
        return done.stdout.splitlines()[-1]

    assert said("0") == "not done: modules"
    assert said("10") == "done"
    rows = json.loads((tmp_path / "out" / "cpu_day_modules.json").read_text())["rows"]
    assert len(rows) == 13  # the box and twelve settings
    assert said("10") == "done"
