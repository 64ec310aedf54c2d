"""Progress on stderr: a bar for who looks, lines for a log."""

import io
import re
import sys
import time
import types

import pytest

from pseudolabel import progress
from pseudolabel.progress import Progress, duration, tracked


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class ZMQInteractiveShell:
    """What IPython calls the shell of a notebook."""


def _on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> _Terminal:
    stream = _Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    return stream


def test_a_line_says_count_loss_rate_and_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    shown = Progress("train-teacher", 72, unit="step")
    now[0] += 40
    shown.advance(24, "loss 0.43")
    assert shown.line() == "train-teacher: step 24/72, loss 0.43, 0.6 steps/s, 80 s left"


def test_what_an_earlier_attempt_did_is_no_part_of_the_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    shown = Progress("fuse", 100, unit="image", done=60)
    assert shown.line() == "fuse: image 60/100"
    now[0] += 10
    shown.advance(20)
    assert shown.line() == "fuse: image 80/100, 2.0 images/s, 10 s left"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (119, "119 s"), (840, "14 min"), (7199, "2 h 0 min"), (12000, "3 h 20 min")],
    ids=str,
)
def test_durations_are_as_people_say_them(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_in_a_log_a_line_comes_at_every_beat(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "HEARTBEAT_S", 0.02)
    with Progress("fuse", 3, unit="image") as shown:
        shown.advance()
        time.sleep(0.3)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) >= 2
    assert re.fullmatch(r"fuse: image 1/3, \d+\.\d images/s, 0 s left", lines[0])


def test_short_work_says_nothing_in_a_log(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(tracked([1, 2, 3], "crops", unit="image")) == [1, 2, 3]
    assert capsys.readouterr().err == ""


def test_on_a_terminal_there_is_one_bar_with_the_note(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = _on_a_terminal(monkeypatch)
    with Progress("train-student", 4, unit="step") as shown:
        for _ in range(4):
            shown.advance(note="loss 0.43")
            time.sleep(0.15)
    assert "train-student" in terminal.getvalue()
    assert "4/4" in terminal.getvalue()
    assert "loss 0.43" in terminal.getvalue()


def test_a_notebook_is_no_terminal_and_still_has_the_bar(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=ZMQInteractiveShell))
    with Progress("train-student", 4, unit="step") as shown:
        shown.advance(4)
    assert "\rtrain-student" in capsys.readouterr().err


def test_other_processes_of_a_training_say_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = _on_a_terminal(monkeypatch)
    with Progress("train-student", 4, unit="step", shown=False, at_once=True) as shown:
        shown.advance(4)
    assert terminal.getvalue() == ""
