"""How a command ends: one line, an exit code, and under torchrun a word on starting again."""

import pytest

from pseudolabel.cli.main import exit_codes
from pseudolabel.errors import ConfigError, MachineError, PseudolabelError


@pytest.mark.parametrize(
    ("error", "restart", "text"),
    [
        pytest.param(ConfigError("no such student"), "1", "(torchrun may start this 2 times more", id="usage"),
        pytest.param(ConfigError("no such student"), "3", None, id="usage, the last attempt"),
        pytest.param(MachineError("disk full"), "1", None, id="what may be gone at the next attempt"),
    ],
)
def test_torchrun_s_restarts_are_said_to_be_of_no_use_where_they_are(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: PseudolabelError,
    restart: str,
    text: str | None,
) -> None:
    monkeypatch.setattr("pseudolabel.cli.main.signal.signal", lambda number, handler: None)
    monkeypatch.setenv("TORCHELASTIC_MAX_RESTARTS", "3")
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", restart)
    with pytest.raises(SystemExit) as stopped, exit_codes():
        raise error
    assert stopped.value.code == error.exit_code
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == f"error: {error}"
    assert (lines[1].startswith(text) and len(lines) == 2) if text else len(lines) == 1


def test_without_torchrun_an_error_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("pseudolabel.cli.main.signal.signal", lambda number, handler: None)
    monkeypatch.delenv("TORCHELASTIC_MAX_RESTARTS", raising=False)
    with pytest.raises(SystemExit), exit_codes():
        raise ConfigError("no such student")
    assert capsys.readouterr().err == "error: no such student\n"
