"""What the options of all teachers have in common; imports no torch."""

import re

from pseudolabel.config import Config, option
from pseudolabel.teachers.table import TRAINED, options_of


class MethodConfig(Config):
    """Which method of `train-teacher`: the last base of every method's own config, so that `--help` begins with it.

    A method's config sets `method` to its name, as default and as the one value that it takes.
    """

    method: str = option("mal", "which teacher: " + ", ".join(TRAINED), group="main")

    @classmethod
    def unknown_option(cls, key: str) -> str:
        methods = [name for name in TRAINED if key in options_of(name).model_fields]
        if not methods:
            return super().unknown_option(key)
        own = cls.model_fields["method"].default
        return f"{key} does nothing with {own}; an option of {', '.join(methods)}"


def method_option(name: str) -> str:
    """The field `method` of a method's config."""
    chosen: str = option(name, "which teacher: " + ", ".join(TRAINED), group="main", pattern=f"^{re.escape(name)}$")
    return chosen
