"""Configs: frozen, checked as a whole, and strict about names."""

from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass
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

    def extras(self) -> tuple[str, ...]:
        """Extras of the package that these options need; see `pseudolabel.optional`."""
        return ()

    @classmethod
    def unknown_option(cls, key: str) -> str:
        """What to say about an option that there is not."""
        return f"unknown key {key!r}{did_you_mean(key, cls.model_fields)}"


ConfigT = TypeVar("ConfigT", bound=Config)


@dataclass(frozen=True, slots=True)
class Values:
    """The values of an option that a condition holds for, and the condition in words."""

    text: str
    holds: Callable[[Any], bool]

    def __contains__(self, value: Any) -> bool:
        return self.holds(value)


def option(
    default: Any,
    help: str,
    *,
    changes_result: bool = True,
    group: Group = "more",
    needs: Mapping[str, Container[Any]] | None = None,
    **constraints: Any,
) -> Any:
    """A config field that is also a command line option.

    Args:
        default: the value when nobody says anything; `...` where one must be given.
        help: one line for `--help`.
        changes_result: False for workers, log level and the like, which leave the fingerprint alone.
        group: where `--help` lists it: among the few that matter (`main`), the rest (`more`), variants of the papers
            (`paper`) or where it runs (`machine`). `--help` shows `main` alone.
        needs: other options and the values of them beside which this one has an effect: a tuple of values, an empty one
            for any value that is true, or `Values`. Without them the option is refused, unless it has its default, and
            is no part of the fingerprint. An option that a config does not have asks for nothing.
        constraints: pydantic's `ge`, `le`, `gt`, `lt`, `pattern`.
    """
    extra: dict[str, Any] = {"changes_result": changes_result, "group": group, "needs": dict(needs or {})}
    return Field(default, description=help, json_schema_extra=extra, **constraints)


def unmet_needs(config: Config, name: str) -> str:
    """What an option lacks to have an effect, as a user would say it; empty where it has one."""
    for other, values in _extra(type(config).model_fields[name], "needs", {}).items():
        if other in type(config).model_fields and not _is_met(getattr(config, other), values):
            return needed_text(other, values)
    return ""


def needed_text(other: str, values: Container[Any]) -> str:
    """An option and its values beside which another one has an effect, in words."""
    said = [values.text] if isinstance(values, Values) else values
    return f"{other} {' or '.join(map(str, said))}".strip() if isinstance(said, Iterable) else other


def _is_met(value: Any, values: Container[Any]) -> bool:
    return bool(value) if values == () else value in values


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


def narrowed(config: Config, config_class: type[ConfigT], **changes: Any) -> ConfigT:
    """The options of another class that a config has as well, with `changes`; its defaults for the rest."""
    known = type(config).model_fields.keys() & config_class.model_fields.keys()
    return config_class.model_validate({name: getattr(config, name) for name in known} | changes)


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
        return config_class.unknown_option(key)
    if problem["type"] == "missing":
        return f"{key} is required: give --{key.replace('_', '-')}"
    if not key:  # of several options together
        return str(problem["msg"])
    return hide_credentials(f"{key}: {problem['msg']} (got {problem.get('input')!r})")
