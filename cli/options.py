"""Command line options made from a config class, so that both never drift apart.

A value comes from the command line, else from `PSEUDOLABEL_<COMMAND>_<OPTION>`, else from the `--config` file's section
of the command, else from the default.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import click

from pseudolabel.cli.help import GroupedOption
from pseudolabel.config import Config, needed_text
from pseudolabel.errors import ConfigError

_WIDEST_CHOICES = 24  # characters; more of them stand behind the text
_BOUNDS = {"ge": "x>={}", "gt": "x>{}", "le": "x<={}", "lt": "x<{}", "multiple_of": "a multiple of {}"}
_WORDS: dict[Any, str] = {click.INT: "INT", click.FLOAT: "FLOAT", click.STRING: "TEXT"}


def options_of(config_class: type[Config]) -> list[click.Parameter]:
    """One `--option` per field of the config, with its help, range and default."""
    return [_option(config_class, name, field) for name, field in config_class.model_fields.items()]


def values_from(section: str, given: Mapping[str, Any], config_file: Path | None) -> dict[str, Any]:
    """What was said about a command, by its options and, where those are silent, by the file's section.

    Args:
        given: options as click parsed them; `None` and empty tuples mean "not said".
        config_file: a YAML file that may hold a section of the command's name.
    """
    from_file = load_run_file(config_file).get(section) or {} if config_file else {}
    said = {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in given.items()
        if value is not None and value != ()
    }
    return {**{str(key).replace("-", "_"): value for key, value in from_file.items()}, **said}


def load_run_file(path: Path) -> dict[str, Any]:
    """The sections of a run file.

    Raises:
        InputError: it is not there or not YAML.
        ConfigError: it is not a mapping.
    """
    from pseudolabel.yaml_file import read_yaml  # a fifth of what `--help` takes

    content = read_yaml(path)
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: expected sections such as 'shard:' and 'fuse:', got {type(content).__name__}")
    return {str(key).replace("_", "-") if key != "run" else "run": value for key, value in content.items()}


def _option(config_class: type[Config], name: str, field: Any) -> click.Option:
    kind, many, flag = _click_type(field.annotation)
    typed = name.replace("_", "-")
    extra = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
    value, choices = ("", []) if flag else _value_text(kind)
    repeated = ["may be repeated"] if many else []
    limits = [*choices, *_needs_text(config_class, extra), *_range_text(field), *_default_text(field), *repeated]
    return GroupedOption(
        [f"--{typed}/--no-{typed}" if flag else f"--{typed}", name],
        type=None if flag else kind,
        multiple=many,
        default=None,
        help=field.description,
        group=str(extra.get("group", "main")),
        value=value,
        limits=limits,
    )


def _value_text(kind: Any) -> tuple[str, list[str]]:
    """What stands behind the option's name, and its choices where they are too long for that."""
    if isinstance(kind, click.Choice):
        choices = "|".join(map(str, kind.choices))
        return (choices, []) if len(choices) <= _WIDEST_CHOICES else ("NAME", [choices])
    return _WORDS.get(kind, "PATH"), []


def _needs_text(config_class: type[Config], extra: Mapping[str, Any]) -> list[str]:
    """The options without which this one would be refused."""
    needs: Mapping[str, Any] = extra.get("needs", {})
    known = {name: values for name, values in needs.items() if name in config_class.model_fields}
    return [f"with --{needed_text(name.replace('_', '-'), values)}" for name, values in known.items()]


def _default_text(field: Any) -> list[str]:
    if field.is_required():
        return ["required"]
    default = field.default
    if default in (None, "", []):
        return []
    shown = {True: "on", False: "off"}.get(default, default) if isinstance(default, bool) else default
    return [f"default: {', '.join(map(str, shown)) if isinstance(shown, list) else shown}"]


def _range_text(field: Any) -> list[str]:
    """The limits of a number, such as `0<=x<1`."""
    limits = {
        key: limit
        for one in _constraints(field)
        for key in _BOUNDS
        if isinstance(limit := getattr(one, key, None), int | float)
    }
    low, high = limits.get("ge", limits.get("gt")), limits.get("le", limits.get("lt"))
    if low is not None and high is not None:
        text = [f"{low}{'<=' if 'ge' in limits else '<'}x{'<=' if 'le' in limits else '<'}{high}"]
    else:
        text = [_BOUNDS[key].format(limit) for key, limit in limits.items() if key != "multiple_of"]
    return text + [_BOUNDS[key].format(limit) for key, limit in limits.items() if key == "multiple_of"]


def _constraints(field: Any) -> Iterator[Any]:
    """What a field says of its values, or of the members of its list."""
    yield from field.metadata
    for part in (field.annotation, *get_args(field.annotation)):
        if get_origin(part) is Annotated:
            for one in get_args(part)[1:]:
                yield from getattr(one, "metadata", [one])


def _click_type(annotation: Any) -> tuple[Any, bool, bool]:
    """(click type, may be repeated, is a flag) of a field's annotation."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _click_type(get_args(annotation)[0])
    if origin in (Union, UnionType):
        return _click_type(_widest([part for part in get_args(annotation) if part is not type(None)]))
    if origin is Literal:
        return click.Choice([str(choice) for choice in get_args(annotation)]), False, False
    if origin is list:
        return _click_type(get_args(annotation)[0])[0], True, False
    if annotation is bool:
        return None, False, True
    if annotation is Path:
        return click.Path(path_type=Path), False, False
    return {int: click.INT, float: click.FLOAT}.get(annotation, click.STRING), False, False


def _widest(parts: list[Any]) -> Any:
    return parts[0] if len(parts) == 1 else str
