"""Two processes train as one does, and neither the death of one nor a signal to one leaves the other behind."""

import csv
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from pseudolabel.errors import ConfigError
from pseudolabel.training.processes import check_processes, is_first_process

pytestmark = pytest.mark.timeout(600)

_TOY = Path(__file__).with_name("toy.py")
_ONE_MACHINE = ("-m", "torch.distributed.run", "--nnodes=1", "--rdzv-backend=c10d", "--rdzv-endpoint=127.0.0.1:0")


def _environment(**more: str) -> dict[str, str]:
    known = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "TOY_"))}
    fixed = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
    return known | fixed | more


def _torchrun(
    program: Sequence[object], *, restarts: int = 0, **environment: str
) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, *_ONE_MACHINE, "--nproc-per-node=2", f"--max-restarts={restarts}", *map(str, program)]
    more = {"TOY_DEVICES": "2", "TOY_BATCH": "2"} | environment
    return subprocess.run(command, capture_output=True, text=True, check=False, env=_environment(**more), timeout=500)


def _losses(folder: Path) -> list[float]:
    return [float(row["loss"]) for row in csv.DictReader((folder / "metrics.csv").open())]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Folder and printed weights of two processes that nobody stopped."""
    folder = tmp_path_factory.mktemp("undisturbed")
    done = _torchrun([_TOY, folder])
    assert done.returncode == 0, done.stderr
    first, weights = done.stdout.split()
    assert first == "0"
    return folder, weights


@pytest.mark.slow
def test_two_processes_without_noise_are_one_with_twice_the_batch(tmp_path: Path) -> None:
    alone, together = tmp_path / "alone", tmp_path / "together"
    environment = _environment(TOY_NOISE="0", TOY_BATCH="4")
    done = subprocess.run([sys.executable, str(_TOY), str(alone)], env=environment, capture_output=True, text=True)
    two = _torchrun([_TOY, together], TOY_NOISE="0")
    assert (done.returncode, two.returncode) == (0, 0), two.stderr
    assert _losses(together) == pytest.approx(_losses(alone), rel=1e-4)
    weights = [np.frombuffer(bytes.fromhex(one.stdout.split()[1]), np.float32) for one in (done, two)]
    assert weights[1] == pytest.approx(weights[0], abs=1e-5)


@pytest.mark.slow
def test_two_processes_draw_noise_of_their_own_and_have_the_same_curve_within_it(
    tmp_path: Path, undisturbed: tuple[Path, str]
) -> None:
    environment = _environment(TOY_BATCH="4")
    done = subprocess.run([sys.executable, str(_TOY), str(tmp_path)], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    ours, theirs = _losses(undisturbed[0]), _losses(tmp_path)
    assert len(ours) == len(theirs) == 3
    assert ours != theirs
    assert ours == pytest.approx(theirs, rel=0.25)


@pytest.mark.slow
def test_after_the_death_of_one_process_torchrun_restarts_both_and_they_reach_the_same_weights(
    tmp_path: Path, undisturbed: tuple[Path, str]
) -> None:
    done = _torchrun([_TOY, tmp_path, int(signal.SIGKILL), 17, 1], restarts=2)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["14", undisturbed[1]]  # the checkpoints are those of steps 7, 14, 21 and 28


@pytest.mark.slow
def test_a_signal_to_one_process_ends_all_with_a_checkpoint_and_75(
    tmp_path: Path, undisturbed: tuple[Path, str]
) -> None:
    stopped = _torchrun([_TOY, tmp_path, int(signal.SIGTERM), 17, 1])
    assert stopped.returncode not in (0, -signal.SIGKILL)
    assert stopped.stdout == ""
    assert "exitcode  : 75" in stopped.stderr
    again = _torchrun([_TOY, tmp_path])
    assert again.returncode == 0, again.stderr
    assert again.stdout.split() == ["18", undisturbed[1]]


def test_another_number_of_processes_than_the_options_say_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    monkeypatch.setenv("WORLD_SIZE", "4")
    check_processes(2, 2)
    with pytest.raises(ConfigError, match="4 processes were started, but --devices 1 times --nodes 1 is 1"):
        check_processes(1, 1)


@pytest.mark.parametrize(
    ("environment", "first"),
    [
        pytest.param({}, True, id="alone"),
        pytest.param({"RANK": "0", "LOCAL_RANK": "0"}, True, id="torchrun, first"),
        pytest.param({"RANK": "2", "LOCAL_RANK": "0"}, False, id="torchrun, second machine"),
        pytest.param({"LOCAL_RANK": "1"}, False, id="started by Lightning"),
        pytest.param({"LOCAL_RANK": "0", "NODE_RANK": "1"}, False, id="Lightning, second machine"),
        pytest.param({"SLURM_PROCID": "0"}, True, id="batch script"),
        pytest.param({"SLURM_PROCID": "1", "SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "2"}, False, id="srun"),
    ],
)
def test_the_process_that_writes_is_known_before_they_meet(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], first: bool
) -> None:
    for name in [*os.environ]:
        if name.startswith("SLURM_") or name in ("RANK", "LOCAL_RANK", "NODE_RANK"):
            monkeypatch.delenv(name)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert is_first_process() is first
