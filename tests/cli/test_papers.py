"""docs/methods.md has a row for every system of the papers, and what it tells to type can be typed."""

import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

from pseudolabel.cli.main import main

_PAGE = (Path(__file__).parents[2] / "docs" / "methods.md").read_text(encoding="utf-8")
_TABLE = _PAGE[_PAGE.index("## The papers' rows") :]
_COMMANDS = re.findall(r"`((?:infer|train)-[a-z]+ R(?: [^`]*)?)`", _TABLE)
_SYSTEMS = (
    "SISeg", "OCRNet", "SegNeXt", "PSPNet", "DeepLabv3", "BoxInst", "CondInst", "Mask R-CNN", "YOLACT", "PolarMask",
    "SOLOv2", "MaskFormer", "GrabCut", "SDI", "BBTP", "BoxTeacher", "BoxSeg", "BoxSeg-T", "DiscoBox", "BoxLevelSet",
    "Box2Mask-C", "Box2Mask-T", "SIM",
)  # fmt: skip


@pytest.mark.parametrize("command", sorted(set(_COMMANDS)))
def test_a_command_of_the_papers_rows_is_understood_with_its_values(command: str) -> None:
    result = CliRunner().invoke(main, [*shlex.split(command), "--print-config"])
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize("system", _SYSTEMS)
def test_every_system_that_the_papers_name_has_a_row(system: str) -> None:
    rows = [line for line in _TABLE.splitlines() if line.startswith("|")]
    assert any(re.search(rf"(?<![\w-]){re.escape(system)}(?![\w-])", line) for line in rows)


def test_every_row_says_something_and_no_command_is_missed() -> None:
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in _TABLE.splitlines() if line[:1] == "|"]
    assert all(len(row) == 2 and all(row) for row in rows)
    typed = re.findall(r"`((?:infer|train)-[^`]*)`", _TABLE)
    assert set(typed) == set(_COMMANDS)
    assert len(set(_COMMANDS)) > 30
