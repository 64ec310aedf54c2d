"""The kinds of issues by name, for options, which import nothing heavy."""

from typing import Literal, get_args

Kind = Literal["doubled", "loose", "tight", "missing", "wrong_class", "tiny", "outside", "odd_size", "bad_mask"]
KINDS: tuple[Kind, ...] = get_args(Kind)
