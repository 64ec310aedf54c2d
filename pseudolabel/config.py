"""Configs: frozen, checked as a whole, and strict about names."""

from collections.abc import Mapping
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from pseudolabel.errors import ConfigError, hide_credentials
from pseudolabel.registry import did_you_mean

Group = Literal["main", "more", "paper", "machine"]


class Config(BaseModel):
    """Base of every config: immutable, unknown keys refused, no silent NaN, no option that would do nothing."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, protected_namespaces=(), defer_build=True
    )

    @model_validator(mode="after")
    def _every_option_does_something(self) -> "Config":
        for name, field in type(self).model_fields.items():
            missing = unmet_needs(self, name)
            if missing and getattr(self, name) != field.get_default(call_default_factory=True):
                raise PydanticCustomError("no_effect", f"{name} does nothing without {missing}")
        return self


ConfigT = TypeVar("ConfigT", bound=Config)


def option(
    default: Any,
    help: str,
    *,
    changes_result: bool = True,
    group: Group = "more",
    needs: Mapping[str, tuple[Any, ...]] | None = None,
    **constraints: Any,
) -> Any:
    """A config field that is also a command line option.

    Args:
        default: the value when nobody says anything; `...` where one must be given.
        help: one line for `--help`.
        changes_result: False for workers, log level and the like, which leave the fingerprint alone.
        group: where `--help` lists it: among the few that matter (`main`), the rest (`more`), variants of the papers
            (`paper`) or where it runs (`machine`). `--help` shows `main` alone.
        needs: other options and the values of them beside which this one has an effect, an empty tuple for any value
            that is true. Without them the option is refused, unless it has its default, and is no part of the
            fingerprint.
        constraints: pydantic's `ge`, `le`, `gt`, `lt`, `pattern`.
    """
    extra: dict[str, Any] = {"changes_result": changes_result, "group": group, "needs": dict(needs or {})}
    return Field(default, description=help, json_schema_extra=extra, **constraints)


def unmet_needs(config: Config, name: str) -> str:
    """What an option lacks to have an effect, as a user would say it; empty where it has one."""
    for other, values in _extra(type(config).model_fields[name], "needs", {}).items():
        value = getattr(config, other)
        if value not in values if values else not value:
            return f"{other} {' or '.join(map(str, values))}".strip()
    return ""


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


def result_relevant(config: Config) -> dict[str, Any]:
    """The part of a config that can change a result, as plain JSON values: what the fingerprint covers."""
    plain = config.model_dump(mode="json")
    return {
        name: plain[name]
        for name, field in type(config).model_fields.items()
        if _extra(field, "changes_result", True) and not unmet_needs(config, name)
    }


def _extra(field: Any, key: str, default: Any) -> Any:
    extra = field.json_schema_extra
    return extra.get(key, default) if isinstance(extra, dict) else default


def _problem(config_class: type[Config], problem: Any) -> str:
    key = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        return f"unknown key {key!r}{did_you_mean(key, config_class.model_fields)}"
    if problem["type"] == "missing":
        return f"{key} is required"
    if problem["type"] == "no_effect":
        return str(problem["msg"])
    return hide_credentials(f"{key}: {problem['msg']} (got {problem.get('input')!r})")
