"""The loop that all trainers share: it resumes exactly, ends honestly, and names what broke it."""

import csv
import importlib.util
import json
import math
import os
import re
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from pseudolabel.errors import MachineError
from pseudolabel.training.config import FitConfig
from pseudolabel.training.fit import fit
from pseudolabel.training.guard import NonFiniteLossError, named
from pseudolabel.training.log import TrainingLog
from pseudolabel.training.schedule import learning_rate_factor
from pseudolabel.training.stop import STOP_SIGNALS, StopRequest

_TOY = Path(__file__).with_name("toy.py")


KILL, STOP, BREAK = (f"{int(number)}" for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT))
_AGAIN: tuple[list[str], dict[str, str]] = ([], {})
STORIES = {
    "undisturbed": [_AGAIN],
    "killed": [([KILL, "17"], {}), _AGAIN],
    "killed late": [([KILL, "27"], {}), _AGAIN],
    "stopped": [([STOP, "17"], {}), _AGAIN],
    "stopped with all": [([STOP, "17"], {"TOY_WORKERS": "2"}), _AGAIN],
    "broken off": [([BREAK, "17"], {"TOY_WORKERS": "2"}), _AGAIN],
    "without TMPDIR": [([KILL, "17"], {"TMPDIR": "/nowhere/at/all"}), _AGAIN],
}


@pytest.fixture(scope="module")
def stories(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, list[tuple[int, list[str]]]]]:
    """How each attempt at each training ended and what it printed; all of them in forks of one program."""
    folder = tmp_path_factory.mktemp("stories")
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, str(_TOY.with_name("attempts.py")), str(folder)]
    done = subprocess.run(command, input=json.dumps(STORIES), capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    return folder, {name: [(code, text.split()) for code, text in attempts] for name, attempts in told.items()}


def _toy() -> Any:
    specification = importlib.util.spec_from_file_location("toy", _TOY)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("story", "code", "resumed_at"),
    [
        pytest.param("killed", -signal.SIGKILL, "14", id="kill -9: from the last regular checkpoint"),
        pytest.param("stopped", 75, "18", id="SIGTERM: from the step that it interrupted"),
        pytest.param("stopped with all", 75, "18", id="SIGTERM also to the processes that load samples"),
        pytest.param("broken off", 130, "18", id="Ctrl-C: from the step that it interrupted"),
        # Lightning's own writer went by way of TMPDIR, and a kill on the way from there lost the checkpoint
        pytest.param("without TMPDIR", -signal.SIGKILL, "14", id="a folder for temporaries that does not exist"),
    ],
)
def test_a_killed_training_goes_on_to_the_same_weights(stories: Any, story: str, code: int, resumed_at: str) -> None:
    (ended, (first, weights)) = stories[1]["undisturbed"][0]
    assert (ended, first) == (0, "0")
    assert stories[1][story] == [(code, []), (0, [resumed_at, weights])]


def test_a_resumed_training_adds_to_the_log_of_the_killed_one(stories: Any) -> None:
    folder, told = stories
    assert told["killed late"][1][1][0] == "21"
    rows = list(csv.DictReader((folder / "killed late" / "metrics.csv").open()))
    assert [row["step"] for row in rows] == ["9", "19", "29"]


def test_a_second_ctrl_c_does_not_wait_for_the_end_of_the_step() -> None:
    with StopRequest() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.received == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_a_training_that_ended_is_only_read_again(tmp_path: Path) -> None:
    toy = _toy()
    data = toy.points()
    config = FitConfig(steps=9, checkpoint_every=4)
    methods = [toy.Toy(), toy.Toy()]
    begun = [fit(method, lambda places: data[list(places)], len(data), tmp_path, config) for method in methods]
    assert begun == [0, 9]
    assert torch.equal(methods[0].line.weight, methods[1].line.weight)


def test_columns_that_come_late_are_added_to_the_log(tmp_path: Path) -> None:
    with TrainingLog(tmp_path, 0) as log:
        log.add(0, {"a": 1.0})
        log.add(1, {"a": 2.0, "b": 0.5})
        log.add(2, {"b": 0.25})
    with TrainingLog(tmp_path, 2) as log:
        log.add(2, {"b": 0.75})
    assert (tmp_path / "metrics.csv").read_text().split() == ["step,a,b", "0,1.0,", "1,2.0,0.5", "2,,0.75"]


def test_where_nobody_looks_the_first_step_is_told_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    toy = _toy()
    data = toy.points()
    fit(toy.Toy(), lambda places: data[list(places)], len(data), tmp_path, FitConfig(steps=9), name="train-toy")
    line = r"train-toy: step 1/9, loss \d[\d.e+-]*, [\d.]+ steps/s, \d+ s left\n"
    assert re.fullmatch(line, capsys.readouterr().err)


def test_a_full_disk_ends_a_training_with_the_folder_named(tmp_path: Path) -> None:
    toy = _toy()
    data = toy.points()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1500, before[1]))
    try:
        with pytest.raises(MachineError, match=str(tmp_path)):
            fit(toy.Toy(), lambda places: data[list(places)], len(data), tmp_path, FitConfig(steps=9))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_after_a_training_signals_are_handled_as_before(tmp_path: Path) -> None:
    toy = _toy()
    data = toy.points()
    before = [signal.getsignal(number) for number in STOP_SIGNALS]
    fit(toy.Toy(), lambda places: data[list(places)], len(data), tmp_path, FitConfig(steps=2))
    assert [signal.getsignal(number) for number in STOP_SIGNALS] == before


def test_a_loss_that_is_no_number_names_the_images_of_its_batch(tmp_path: Path) -> None:
    toy = _toy()
    data = toy.points()
    data[5, 1] = math.nan
    config = FitConfig(steps=20, batch_size=3)
    with pytest.raises(NonFiniteLossError, match=r"not finite: square; images of the batch: .*") as error:
        fit(toy.Toy(), lambda places: data[list(places)], len(data), tmp_path, config)
    assert f"{data[5, 0]:.3f}.jpg" in str(error.value)


def test_the_log_has_every_loss_by_name(tmp_path: Path) -> None:
    toy = _toy()
    data = toy.points()
    fit(toy.Toy(), lambda places: data[list(places)], len(data), tmp_path, FitConfig(steps=9, log_every=3))
    rows = list(csv.DictReader((tmp_path / "metrics.csv").open()))
    assert [row["step"] for row in rows] == ["2", "5", "8"]
    assert all(float(row["square"]) == pytest.approx(float(row["loss"])) for row in rows)
    assert list((tmp_path / "tensorboard").glob("events.*"))


def test_the_learning_rate_rises_in_a_line_and_falls_as_a_cosine() -> None:
    factors = [learning_rate_factor(step, steps=100, warmup=0.1) for step in range(100)]
    assert factors[:3] == pytest.approx([1 / 11, 2 / 11, 3 / 11])
    assert factors[10] == 1
    assert factors[55] == pytest.approx(0.5)
    assert factors[99] == pytest.approx(0.5 * (1 + math.cos(math.pi * 89 / 90)))


def test_many_images_are_counted_and_not_repeated() -> None:
    assert named(["a", "b", "a"]) == "a, b"
    assert named([f"{n}" for n in range(20)]).endswith("14, 15 and 4 more")


def test_gradients_are_clipped_to_the_given_norm(tmp_path: Path) -> None:
    toy = _toy()
    data = toy.points() * 1e4
    method = toy.Toy()
    seen: list[float] = []
    method.line.weight.register_post_accumulate_grad_hook(lambda weight: seen.append(float(weight.grad.norm())))
    fit(method, lambda places: data[list(places)], len(data), tmp_path, FitConfig(steps=2, clip_norm=0.5))
    assert min(seen) > 0.5
    gradient = torch.cat([parameter.grad.flatten() for parameter in method.line.parameters()])
    assert float(gradient.norm()) == pytest.approx(0.5, rel=1e-4)


def test_what_a_method_measures_stands_beside_its_losses_in_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toy = _toy()
    data, method, asked = toy.points(), toy.Toy(), []
    monkeypatch.setattr(method, "measured", lambda: {"asked": float(len(asked.append(1) or asked))})
    fit(method, lambda places: data[list(places)], len(data), tmp_path, FitConfig(steps=6, log_every=3, device="cpu"))
    rows = list(csv.DictReader((tmp_path / "metrics.csv").open()))
    assert [(int(row["step"]), float(row["asked"])) for row in rows] == [(2, 1), (5, 2)]
    assert {"square", "loss"} <= rows[0].keys()
