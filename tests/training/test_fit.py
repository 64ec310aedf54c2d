"""The loop that all trainers share: it resumes exactly, ends honestly, and names what broke it."""

import csv
import importlib.util
import math
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from pseudolabel.training.config import FitConfig
from pseudolabel.training.fit import fit, learning_rate_factor
from pseudolabel.training.guard import NonFiniteLossError, named

_TOY = Path(__file__).with_name("toy.py")


def _program(*arguments: object) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, str(_TOY), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


def _toy() -> Any:
    specification = importlib.util.spec_from_file_location("toy", _TOY)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> str:
    done = _program(tmp_path_factory.mktemp("undisturbed"))
    assert done.returncode == 0, done.stderr
    first, weights = done.stdout.split()
    assert first == "0"
    return weights


@pytest.mark.parametrize(
    ("number", "returncode", "resumed_at"),
    [
        pytest.param(signal.SIGKILL, -signal.SIGKILL, "14", id="kill -9: from the last regular checkpoint"),
        pytest.param(signal.SIGTERM, 75, "18", id="SIGTERM: from the step that it interrupted"),
    ],
)
def test_a_killed_training_goes_on_to_the_same_weights(
    tmp_path: Path, undisturbed: str, number: int, returncode: int, resumed_at: str
) -> None:
    killed = _program(tmp_path, int(number), 17)
    assert killed.returncode == returncode, killed.stderr
    assert killed.stdout == ""
    again = _program(tmp_path)
    assert again.returncode == 0, again.stderr
    assert again.stdout.split() == [resumed_at, undisturbed]


def test_after_a_training_signals_are_handled_as_before(tmp_path: Path) -> None:
    toy = _toy()
    data = toy.points()
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1)]
    fit(toy.Toy(), lambda places: data[list(places)], len(data), tmp_path, FitConfig(steps=2))
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1)] == before


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
