"""One name, one meaning: an option that several commands have takes the same kind of value and says the same."""

from collections import defaultdict
from collections.abc import Iterator
from itertools import combinations

import click
import pytest

from pseudolabel.cli.commands import ConfiguredCommand
from pseudolabel.pipelines.graph import COMMANDS, Configured
from pseudolabel.teachers.table import TRAINED

# options of one name that take other kinds of values, and why
OTHER_VALUES = {
    "images": "a run may read stores and archives; predict reads a folder; export: what becomes of them",
    "masks": "how candidates are made; add-candidates: the file that has them",
    "channels": "which ones of a TIFF; train-teacher: how many of the pyramid",
}
# options of one name whose words differ, and why
OTHER_WORDS = OTHER_VALUES | {
    "batch-size": "what a batch is made of",
    "out": "a folder of results, or a page",
    "epochs": "objects are seen, or images",
    "image-px": "the short side of an image, or of a square",
}


def _commands() -> Iterator[tuple[str, click.Command]]:
    """Every command that has a config, and one whose options depend on a method once for each."""
    for name, entry in COMMANDS.items():
        if isinstance(entry, Configured):
            yield name, ConfiguredCommand(name, entry)
            for method in TRAINED if name == "train-teacher" else ():
                yield f"{name} --method {method}", ConfiguredCommand(name, entry, {"method": method})


def _uses() -> dict[str, dict[str, click.Option]]:
    """The options that more than one command has, by name and command."""
    found: dict[str, dict[str, click.Option]] = defaultdict(dict)
    for name, command in _commands():
        for one in command.params:
            if isinstance(one, click.Option):
                found[one.opts[0].removeprefix("--")][name] = one
    return {name: uses for name, uses in found.items() if len(uses) > 1}


def _takes_the_same(one: click.Option, other: click.Option) -> bool:
    """Whether the values are of one kind; of two lists of choices one may be a part of the other."""
    first, second = one.type, other.type
    if isinstance(first, click.Choice) and isinstance(second, click.Choice):
        shared = set(first.choices) & set(second.choices)
        return shared in (set(first.choices), set(second.choices))
    same = (one.multiple, one.is_flag, type(first)) == (other.multiple, other.is_flag, type(second))
    return same and first.name == second.name


def _meaning(option: click.Option) -> str:
    """The words of a help text before its particulars, which stand behind a comma, colon, semicolon or bracket."""
    text = str(option.help)
    return text[: min(f"{text}{mark}".index(mark) for mark in ",:;(")].strip()


_USES = _uses()


@pytest.mark.parametrize("name", sorted(set(_USES) - set(OTHER_VALUES)))
def test_options_of_one_name_take_values_of_one_kind(name: str) -> None:
    for (one, first), (other, second) in combinations(_USES[name].items(), 2):
        assert _takes_the_same(first, second), f"--{name} of {one} and of {other}"


@pytest.mark.parametrize("name", sorted(set(_USES) - set(OTHER_WORDS)))
def test_options_of_one_name_begin_with_the_same_words(name: str) -> None:
    found = {command: _meaning(option) for command, option in _USES[name].items()}
    assert len(set(found.values())) == 1, found


@pytest.mark.parametrize("name", sorted(OTHER_WORDS))
def test_an_exception_is_needed(name: str) -> None:
    options = list(_USES[name].values())
    assert any(
        not _takes_the_same(one, other) or _meaning(one) != _meaning(other) for one, other in combinations(options, 2)
    )
