"""Command line options made from a config class, so that both never drift apart.

A value comes from the command line, else from `PSEUDOLABEL_<COMMAND>_<OPTION>`, else from the `--config` file's section
of the command, else from the default.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

import click
import yaml

from pseudolabel.config import Config, parse_config
from pseudolabel.errors import ConfigError, InputError

F = TypeVar("F", bound=Callable[..., Any])
ConfigT = TypeVar("ConfigT", bound=Config)


def config_options(*config_classes: type[Config]) -> Callable[[F], F]:
    """One `--option` per field of the configs, with the help and default that the first that has it gives it."""
    fields: dict[str, Any] = {}
    for config_class in config_classes:
        fields = {**config_class.model_fields, **fields}

    def decorate(function: F) -> F:
        for name, field in reversed(fields.items()):
            function = _option(name, field)(function)
        return function

    return decorate


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
    return {**from_file, **said}


def config_from(
    config_class: type[ConfigT], section: str, given: Mapping[str, Any], config_file: Path | None
) -> ConfigT:
    """The checked config of a command; arguments as in `values_from`."""
    return parse_config(config_class, values_from(section, given, config_file), where=section)


def load_run_file(path: Path) -> dict[str, Any]:
    """The sections of a run file.

    Raises:
        InputError: it is not there or not YAML.
        ConfigError: it is not a mapping.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not YAML ({' '.join(str(error).split())[:200]})") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: expected sections such as 'shard:' and 'fuse:', got {type(content).__name__}")
    return {str(key).replace("_", "-") if key != "run" else "run": value for key, value in content.items()}


def _option(name: str, field: Any) -> Callable[[F], F]:
    kind, many, flag = _click_type(field.annotation)
    declaration = f"--{name.replace('_', '-')}"
    if flag:
        declaration += f"/--no-{name.replace('_', '-')}"
    text = f"{field.description}{_default_text(field)}"
    return click.option(declaration, name, type=None if flag else kind, multiple=many, default=None, help=text)


def _default_text(field: Any) -> str:
    if field.is_required():
        return "  [required]"
    return "" if field.default in (None, "", []) else f"  [default: {field.default}]"


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
