"""Configs: frozen, checked as a whole, and strict about names."""

import types
from collections.abc import Mapping
from typing import Any, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pseudolabel.errors import ConfigError
from pseudolabel.registry import did_you_mean
from pseudolabel.sources.place import hide_credentials


class Config(BaseModel):
    """Base of every config: immutable, unknown keys refused, no silent NaN."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, protected_namespaces=())


ConfigT = TypeVar("ConfigT", bound=Config)


def option(default: Any, help: str, *, changes_result: bool = True, **constraints: Any) -> Any:
    """A config field that is also a command line option.

    Args:
        default: the value when nobody says anything; `...` where one must be given.
        help: one line for `--help`.
        changes_result: False for workers, log level and the like, which leave the fingerprint alone.
        constraints: pydantic's `ge`, `le`, `gt`, `lt`, `pattern`.
    """
    return Field(default, description=help, json_schema_extra={"changes_result": changes_result}, **constraints)


def parse_config(config_class: type[ConfigT], values: Mapping[str, Any], *, where: str) -> ConfigT:
    """`values` as a checked config.

    Raises:
        ConfigError: every problem at once, one line each; an unknown key names the nearest known one.
    """
    try:
        return config_class.model_validate(dict(values))
    except ValidationError as error:
        lines = [_problem(config_class, problem) for problem in error.errors()]
        raise ConfigError(f"{where}: " + "; ".join(lines)) from None


def split_values(
    values: Mapping[str, Any], first: type[Config], second: type[Config], *, where: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The values of two configs that stand in one section, apart.

    Raises:
        ConfigError: a key that neither knows.
    """
    known = [*first.model_fields, *second.model_fields]
    for key in values:
        if key not in known:
            raise ConfigError(f"{where}: unknown key {key!r}{did_you_mean(key, known)}")
    return (
        {key: value for key, value in values.items() if key in first.model_fields},
        {key: value for key, value in values.items() if key in second.model_fields},
    )


def result_relevant(config: Config) -> dict[str, Any]:
    """The part of a config that can change a result, as plain JSON values: what the fingerprint covers."""
    plain = config.model_dump(mode="json")
    return {name: plain[name] for name, field in type(config).model_fields.items() if _changes_result(field)}


def is_optional(annotation: Any) -> bool:
    """Whether `None` is among the types of a field's annotation."""
    return get_origin(annotation) in (Union, types.UnionType) and type(None) in get_args(annotation)


def _changes_result(field: Any) -> bool:
    extra = field.json_schema_extra
    return not (isinstance(extra, dict) and extra.get("changes_result") is False)


def _problem(config_class: type[Config], problem: Any) -> str:
    key = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        return f"unknown key {key!r}{did_you_mean(key, config_class.model_fields)}"
    if problem["type"] == "missing":
        return f"{key} is required"
    return hide_credentials(f"{key}: {problem['msg']} (got {problem.get('input')!r})")
