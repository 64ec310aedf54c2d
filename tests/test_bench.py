"""`make bench`: what was, what is, and when it fails."""

import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

SCRIPTS = Path(__file__).parent / "benchmarks"


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import bench

    return bench


def _rows(ratio: float) -> list[dict[str, Any]]:
    return [{"case": "other", "ratio": 99.0}, {"case": "upsampling by 2, 64 instances", "ratio": ratio}]


@pytest.mark.parametrize(
    ("was", "found", "verdict"),
    [(4.0, 2.5, "reached"), (1.5, 1.0, "missed"), (4.1, 2.0, "FALLEN"), (None, 0.5, "missed")],
    ids=["over the goal", "under it", "less than half of what it was", "nothing to compare with"],
)
def test_a_ratio_is_compared_with_its_goal_and_with_what_it_was(
    bench: ModuleType, was: float | None, found: float, verdict: str
) -> None:
    figure = bench.Figure("mask_head", "upsampling by 2", 2)
    row = bench.compared(figure, [] if was is None else _rows(was), _rows(found))
    assert (row["was"], row["is"], row[""]) == (was, found, verdict)


def test_of_seconds_less_is_better(bench: ModuleType) -> None:
    figure = bench.Figure("start_up", "python", 1.5, "cpu_s")
    assert bench.compared(figure, [], [{"case": "python", "cpu_s": 1.0}])[""] == "reached"
    assert bench.compared(figure, [], [{"case": "python", "cpu_s": 2.0}])[""] == "missed"


def test_the_goals_stand_beside_what_is_committed_and_what_is_not_there_is_said(
    bench: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures = (bench.Figure("mask_head", "upsampling by 2", 2), bench.Figure("mask_head", "downsampling", 2))
    monkeypatch.setattr(bench, "FIGURES", figures)
    monkeypatch.setattr(bench, "committed", lambda script: {"rows": _rows(2.5)})
    assert [(row["is"], row[""]) for row in bench.standing()] == [(2.5, "reached"), (None, "not measured")]


def test_a_case_that_is_gone_is_named(bench: ModuleType) -> None:
    with pytest.raises(SystemExit, match=r"mask_head.py has no case 'downsampling'"):
        bench.compared(bench.Figure("mask_head", "downsampling", 2), [], _rows(1.0))


def test_every_script_that_it_runs_is_there_and_takes_out(bench: ModuleType) -> None:
    for script in {figure.script for figure in bench.FIGURES}:
        assert "report(" in (SCRIPTS / f"{script}.py").read_text(), script


def test_start_up_is_measured_in_processes_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import start_up

    with pytest.raises(SystemExit, match="ended with 3"):
        start_up.cost(["-c", "raise SystemExit(3)"])
    program = (
        f"import sys; sys.path.insert(0, {str(SCRIPTS)!r})\n"
        "from start_up import cost\n"
        "print(cost(['-c', 'pass'])[1], cost(['-c', 'x = bytearray(200_000_000)'])[1])"
    )  # a process starts with the memory of who starts it, which here is the whole suite
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    idle, busy = map(float, done.stdout.split())
    assert busy > idle + 150


def test_the_help_says_how_to_run_a_few(bench: ModuleType) -> None:
    done = subprocess.run(
        [sys.executable, str(SCRIPTS / "bench.py"), "--help"], capture_output=True, text=True, check=True
    )
    assert "bench.py rle colour_field" in done.stdout
