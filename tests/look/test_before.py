"""What is looked at before a command works: what it finds, what it says, and what it costs."""

import logging
import time
from pathlib import Path
from typing import Any

import pytest

from pseudolabel.pipelines.doctor import before, system
from pseudolabel.pipelines.forecast import COSTS
from pseudolabel.pipelines.options.stages.infer_colors import InferColorsConfig
from pseudolabel.pipelines.options.stages.infer_semantic import InferSemanticConfig
from pseudolabel.pipelines.run.paths import RunPaths
from pseudolabel.pipelines.runner import RunOptions
from pseudolabel.pipelines.steps import make_step
from pseudolabel.teachers.mal.config import MalConfig
from tests.look.made_runs import Made, MadeRun, make_run

SEGMENTER: dict[str, Any] = {"model": "a.onnx"}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> MadeRun:
    return make_run(tmp_path_factory.mktemp("before"), {"a.png": [Made((5, 5, 20, 20))]}, shards=1)


@pytest.fixture
def large_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Eight cores, much memory and disk, no GPU."""
    monkeypatch.setattr(before, "available_cores", lambda: 8)
    monkeypatch.setattr(before, "memory_gb", lambda: (64.0, 64.0))
    monkeypatch.setattr(before, "NVIDIA_DRIVER", tmp_path / "no driver")
    monkeypatch.setattr(system.shutil, "disk_usage", lambda place: system.shutil._ntuple_diskusage(9e12, 1e12, 8e12))


def found(run: RunPaths, config: Any, name: str = "infer-semantic") -> dict[str, Any]:
    return {check.name: check for check in before.troubles(run, name, config)}


@pytest.mark.usefixtures("large_machine")
def test_a_machine_that_suits_is_not_spoken_of(made: MadeRun) -> None:
    assert found(made.paths, InferSemanticConfig(**SEGMENTER)) == {}


@pytest.mark.usefixtures("large_machine")
@pytest.mark.parametrize(
    ("values", "said"),
    [
        pytest.param({"workers": 8, "threads": 2}, "8 x 2 threads on 8 processors", id="too many together"),
        pytest.param({"threads": 2}, "8 x 2 threads on 8 processors", id="a worker per core"),
        pytest.param({"workers": 4, "threads": 2}, None, id="as many as there are"),
        pytest.param({"workers": 32}, None, id="workers alone, which was asked for"),
    ],
)
def test_threads_that_would_wait_for_each_other_are_named(
    values: dict[str, int], said: str | None, made: MadeRun
) -> None:
    check = found(made.paths, InferSemanticConfig(**SEGMENTER, **values)).get("processors")
    assert (check.found if check else None) == said


@pytest.mark.usefixtures("large_machine")
def test_workers_that_do_not_fit_the_memory_are_named_with_how_many_do(
    made: MadeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(before, "memory_gb", lambda: (2.5 * COSTS["infer-semantic"].worker_mb / 1e3, 64.0))
    check = found(made.paths, InferSemanticConfig(**SEGMENTER))["memory"]
    assert check.todo == "--workers 2"


@pytest.mark.usefixtures("large_machine")
def test_a_training_that_does_not_fit_the_memory_is_named(made: MadeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(before, "memory_gb", lambda: (0.2, 64.0))
    check = found(made.paths, MalConfig(), "train-teacher")["memory"]
    assert check.found.startswith("0.2 GB free, 1 processes may take ")
    assert "--batch-size" in check.todo


@pytest.mark.usefixtures("large_machine")
def test_a_disk_that_is_nearly_full_is_named(made: MadeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(system.shutil, "disk_usage", lambda place: system.shutil._ntuple_diskusage(9e12, 9e12, 4e8))
    check = found(made.paths, InferColorsConfig(), "infer-colors")["disk"]
    assert check.found.endswith("0.4 GB free")
    assert "free some space" in check.todo


@pytest.mark.usefixtures("large_machine")
@pytest.mark.parametrize(
    ("versions", "values", "said"),
    [
        pytest.param({"torch": "2.10.0+cpu"}, {}, "torch 2.10.0+cpu cannot use it", id="torch without CUDA"),
        pytest.param({"torch": "2.10.0+cpu"}, {"device": "cpu"}, None, id="the processor was asked for"),
        pytest.param({"torch": "2.10.0", "onnxruntime": "1.30"}, {}, "onnxruntime is here without CUDA", id="ONNX"),
        pytest.param({"torch": "2.10.0", "onnxruntime-gpu": "1.30"}, {}, None, id="both with CUDA"),
    ],
)
def test_a_gpu_that_no_library_can_use_is_named(
    versions: dict[str, str], values: dict[str, str], said: str | None, made: MadeRun,
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
) -> None:  # fmt: skip
    (tmp_path / "version").touch()
    monkeypatch.setattr(before, "NVIDIA_DRIVER", tmp_path / "version")
    monkeypatch.setattr(before, "_version", versions.get)
    check = found(made.paths, InferSemanticConfig(**SEGMENTER, **values)).get("GPU")
    assert (said in check.found) if said and check else check is None


@pytest.mark.usefixtures("large_machine")
def test_a_stage_says_what_does_not_suit_it_before_it_begins(
    made: MadeRun, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(before, "memory_gb", lambda: (0.01, 64.0))
    caplog.set_level(logging.WARNING, "pseudolabel")
    step = make_step("infer-colors", InferColorsConfig(workers=2))
    list(step.run(made.paths, RunOptions(engine="inline", overwrite=True)))
    assert [line for line in caplog.messages if line.startswith("infer-colors: memory: ")]


@pytest.mark.usefixtures("large_machine")
def test_of_several_processes_that_were_started_together_the_first_speaks(
    made: MadeRun, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(before, "memory_gb", lambda: (0.01, 64.0))
    monkeypatch.setenv("RANK", "1")
    before.tell_troubles(made.paths, "infer-colors", InferColorsConfig())
    assert caplog.messages == []


def test_the_look_costs_less_than_twenty_milliseconds(made: MadeRun) -> None:
    config = InferSemanticConfig(**SEGMENTER)

    def seconds() -> float:
        begun = time.process_time()
        before.need_extras("train-teacher", config)
        before.troubles(made.paths, "infer-semantic", config)
        return time.process_time() - begun

    assert min(seconds() for _ in range(5)) < 0.02
