"""Students on two processes: losses and gradients of one process with all samples, whatever a process gets to see."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from pseudolabel.students.names import STUDENTS
from pseudolabel.training import processes

from .halves import Losses, cases, losses_and_gradients, new_student

pytestmark = pytest.mark.timeout(600)

_ROOT = Path(__file__).parents[2]
_EXACT = ("condinst", "query")  # Mask R-CNN draws regions at random, and others in every process


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, dict[str, torch.Tensor]]]:
    """Mean losses and averaged gradients of two processes, by case and student."""
    folder = tmp_path_factory.mktemp("halves")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.students.halves", folder, str(rank)],
            cwd=_ROOT,
            env=environment,
            stderr=subprocess.PIPE,
        )
        for rank in range(2)
    ]
    errors = [one.communicate(timeout=500)[1] for one in started]
    assert [one.returncode for one in started] == [0, 0], errors
    return {path.stem: torch.load(path, weights_only=True) for path in folder.glob("*.pt")}


class _InTurns:
    """Stands for two processes that compute one after the other, twice: first they say what they count."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.said: tuple[list[torch.Tensor], list[torch.Tensor]] = ([], [])
        self.rank, self.asked, self.known = 0, 0, False
        monkeypatch.setattr(processes, "mean_of_all", self._mean)
        monkeypatch.setattr(processes, "number_of_processes", lambda: 2)

    def _mean(self, values: torch.Tensor) -> torch.Tensor:
        if not self.known:
            self.said[self.rank].append(values.detach())
            return values.detach()
        self.asked += 1
        return (self.said[0][self.asked - 1] + self.said[1][self.asked - 1]) / 2

    def losses(self, name: str, samples: list) -> list[dict[str, torch.Tensor]]:
        for self.known in (False, True):
            found = []
            for self.rank in range(2):
                self.asked = 0
                half = samples[2 * self.rank : 2 * self.rank + 2]
                found.append(losses_and_gradients(Losses(new_student(name)), half)[0])
        return found


@pytest.mark.parametrize("case", ["uneven", "second_half_empty", "first_half_boxes"])
@pytest.mark.parametrize("name", tuple(STUDENTS))
def test_what_is_divided_by_is_counted_over_both_halves(monkeypatch: pytest.MonkeyPatch, name: str, case: str):
    whole = losses_and_gradients(Losses(new_student(name)), cases()[case])[0]
    turns = _InTurns(monkeypatch)
    halves = turns.losses(name, cases()[case])
    assert len(turns.said[0]) == len(turns.said[1]) > 0  # or one process would wait for the other for ever
    means = {key: float(halves[0][key] + halves[1][key]) / 2 for key in whole}
    if name in _EXACT:
        assert means == pytest.approx({key: float(value) for key, value in whole.items()}, rel=1e-5, abs=1e-7)
    else:
        assert all(torch.isfinite(torch.tensor(list(means.values()))))


@pytest.mark.slow
@pytest.mark.parametrize("case", cases())
@pytest.mark.parametrize("name", _EXACT)
def test_two_halves_of_a_batch_give_the_losses_and_gradients_of_the_whole(together, name: str, case: str):
    losses, gradients = losses_and_gradients(Losses(new_student(name)), cases()[case])
    found = together[f"{case}-{name}"]
    assert {key: float(value) for key, value in found["losses"].items()} == pytest.approx(
        {key: float(value) for key, value in losses.items()}, rel=1e-5, abs=1e-7
    )
    largest = max(float(gradient.abs().max()) for gradient in gradients.values())
    for key, gradient in gradients.items():
        assert torch.allclose(found["gradients"][key], gradient, rtol=1e-3, atol=1e-5 * largest), key


@pytest.mark.slow
@pytest.mark.parametrize("case", cases())
@pytest.mark.parametrize("name", tuple(STUDENTS))
def test_no_process_waits_for_ever_and_every_gradient_is_a_number(together, name: str, case: str):
    found = together[f"{case}-{name}"]
    assert all(bool(value.isfinite().all()) for part in found.values() for value in part.values())
    assert len(found["gradients"]) > 20


@pytest.mark.slow
def test_the_case_that_weighs_halves_unevenly_tells_a_mean_of_means_from_a_mean(together):
    """The first half has several times the second's positives, so that normalising each alone would show."""
    samples = cases()["uneven"]
    halves = [losses_and_gradients(Losses(new_student("condinst")), half)[0] for half in (samples[:2], samples[2:])]
    mean_of_means = float(halves[0]["mask"] + halves[1]["mask"]) / 2
    assert abs(float(together["uneven-condinst"]["losses"]["mask"]) - mean_of_means) > 1e-3
