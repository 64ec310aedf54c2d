"""What README and docs tell people to type can be typed: the commands are there, with the options that are named."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from pseudolabel.cli.commands import ConfiguredCommand
from pseudolabel.cli.main import main
from pseudolabel.pipelines.graph import COMMANDS, Configured

_ROOT = Path(__file__).parents[2]
# results.md tells the commands of its day; those of adding.md are typed by tests/contracts/test_adding.py
_PAGES = [
    path
    for path in [_ROOT / "README.md", *sorted((_ROOT / "docs").rglob("*.md"))]
    if path.name not in ("results.md", "adding.md")
]


def _typed(page: Path) -> Iterator[list[str]]:
    """The words of every call of `pseudolabel` in a page's blocks of code."""
    for block in re.findall(r"```[a-z]*\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            for call in re.split(r"&&|\||;", line.split(" #")[0]):
                words = call.strip().removeprefix("$ ")
                if words.startswith("pseudolabel ") and not words.startswith("pseudolabel -"):
                    yield shlex.split(words)[1:]


def _options_of(words: list[str]) -> set[str]:
    entry = COMMANDS.get(words[0])
    command: click.Command | None = main.get_command(click.Context(main), words[0])
    assert command is not None, f"no command {words[0]}"
    if isinstance(entry, Configured) and "--method" in words:
        command = ConfiguredCommand(words[0], entry, {"method": words[words.index("--method") + 1]})
    options = [one for one in command.params if isinstance(one, click.Option)]
    return {name for one in options for name in (*one.opts, *one.secondary_opts)} | {"--help", "--help-all"}


@pytest.mark.parametrize("page", _PAGES, ids=[str(path.relative_to(_ROOT)) for path in _PAGES])
def test_the_commands_of_a_page_have_the_options_that_it_names(page: Path) -> None:
    for words in _typed(page):
        said = {word.partition("=")[0] for word in words[1:] if word.startswith("--")}
        assert said <= _options_of(words), f"{page.name}: pseudolabel {' '.join(words)}"


def test_there_are_commands_in_the_readme() -> None:
    assert {words[0] for words in _typed(_ROOT / "README.md")} >= {"shard", "infer-colors", "fuse", "evaluate"}


_FOLDERS = ("", "tests/")  # the page on reliability names tests from their folder on
_CODE = r"`((?:pseudolabel|pipelines|cli|tests|faults|docs)/[\w./-]+\.(?:py|md|json|ya?ml))`"
_NAMES = r"((?:`[\w.]+`(?:, | and )?)+) in `([\w/]+\.py)`"


@pytest.mark.parametrize("page", _PAGES, ids=[str(path.relative_to(_ROOT)) for path in _PAGES])
def test_the_files_that_a_page_names_are_there_with_what_it_says_is_in_them(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for name in re.findall(_CODE, text):
        assert any((_ROOT / folder / name).is_file() for folder in _FOLDERS), f"{page.name}: {name}"
    for names, file in re.findall(_NAMES, text):
        code = (_ROOT / file).read_text(encoding="utf-8")
        for name in re.findall(r"`([\w.]+)`", names):
            assert name.rpartition(".")[2] in code, f"{page.name}: {name} in {file}"
