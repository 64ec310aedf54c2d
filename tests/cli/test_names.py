"""One name, one meaning: an option that several commands have takes the same kind of value and says the same."""

from collections import defaultdict
from itertools import combinations
from typing import Any

import click
import pytest

from pseudolabel.cli.main import main
from pseudolabel.pipelines.graph import COMMANDS, Configured, Trainer

# options of one name that take other kinds of values, and why
OTHER_VALUES = {
    "images": "a run may read stores and archives; predict reads a folder",
    "size": "the model's input; train-teacher: a neighbourhood",
    "weights": "a file; train-student: what a mask weighs",
    "masks": "how candidates are made; train-student: which masks it learns",
    "labels": "label maps; train-student: a COCO file",
    "scale": "of images; fuse: of box scores",
    "copy-paste": "whether; train-student: how often",
    "candidates": "how many; fuse: or adaptive",
    "room": "infer-prompted: several crops of a box, each with its room; train-teacher: one",
    "views": "infer-prompted: how many per box; train-student: which kind",
    "channels": "which ones of a TIFF; train-teacher: how many of the pyramid",
}
# options of one name whose words differ, and why
OTHER_WORDS = OTHER_VALUES | {
    "batch-size": "what a batch is made of",
    "annotations": "what each command reads",
    "card": "of which model",
    "exif": "shard fixes the rule of a run; predict has its own",
    "least-score": "what is left out below it",
    "min-iou": "of a brought mask, or of a candidate, with the box",
    "model": "which kinds of model a command takes",
}


def _uses(*, trainers: bool) -> dict[str, dict[str, click.Option]]:
    """The options that more than one command has, by name and command."""
    found: dict[str, dict[str, click.Option]] = defaultdict(dict)
    for name, entry in COMMANDS.items():
        if isinstance(entry, Configured) and (trainers or not isinstance(entry, Trainer)):
            command = main.get_command(click.Context(main), name)
            for one in command.params if command else ():
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


_ALL: Any = _uses(trainers=True)
_NO_TRAINERS: Any = _uses(trainers=False)


@pytest.mark.parametrize("name", sorted(set(_ALL) - set(OTHER_VALUES)))
def test_options_of_one_name_take_values_of_one_kind(name: str) -> None:
    for (one, first), (other, second) in combinations(_ALL[name].items(), 2):
        assert _takes_the_same(first, second), f"--{name} of {one} and of {other}"


@pytest.mark.parametrize("name", sorted(set(_NO_TRAINERS) - set(OTHER_WORDS)))
def test_options_of_one_name_begin_with_the_same_words(name: str) -> None:
    assert len({_meaning(option) for option in _NO_TRAINERS[name].values()}) == 1, {
        command: _meaning(option) for command, option in _NO_TRAINERS[name].items()
    }
