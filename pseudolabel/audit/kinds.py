"""The kinds of issues by name, for options, which import nothing heavy."""

from typing import Literal, get_args

Fact = Literal["doubled", "tiny", "outside"]  # what the boxes alone show
Hint = Literal["loose", "tight", "missing", "wrong_class", "odd_size", "bad_mask"]  # what a model or a habit suggests
Kind = Fact | Hint
FACTS: tuple[Fact, ...] = get_args(Fact)
KINDS: tuple[Kind, ...] = (*FACTS, *get_args(Hint))
