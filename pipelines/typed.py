"""Commands as a user types them, for messages, `doctor` and `report`."""

import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pseudolabel.errors import hide_credentials
from pseudolabel.pipelines.graph import COMMANDS, configured, load_stage
from pseudolabel.pipelines.planning.plan import Plan
from pseudolabel.pipelines.run.paths import RunPaths


def typed_command(name: str, run: RunPaths, plan: Plan, values: Mapping[str, Any], *more: str) -> str:
    """The line that runs a command by these options as it stands; those at their defaults are left out.

    Args:
        more: words that stand behind them, such as `--overwrite`.
    """
    if name == "shard":
        kind, _, annotations = plan.source.partition(":")
        planned: dict[str, Any] = {
            "images": plan.images_root,
            "annotations": annotations if annotations != plan.images_root else None,
        }
        planned |= {"source": kind, "shards": plan.num_shards, "exif": plan.exif, "stretch": plan.stretch}
        planned |= {"channels": plan.channels, "page": plan.page}
        values = {**values, **planned}
    words = ["pseudolabel", name, str(run.root), *_options(name, values), *more]
    return hide_credentials(" ".join(shlex.quote(word) for word in words))


def _options(name: str, values: Mapping[str, Any]) -> Iterator[str]:
    """The options that differ from their defaults; those of another version, which nobody could type now, are gone."""
    config_class = configured(name).config_class(values) if name in COMMANDS else load_stage(name).config_class
    for key, field in config_class.model_fields.items():
        default = None if field.is_required() else field.get_default(call_default_factory=True)
        value = values.get(key, default)
        if value is not None and _plain(value) != _plain(default):
            yield from _option(f"--{key.replace('_', '-')}", _plain(value))


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else str(value) if isinstance(value, Path) else value


def _option(name: str, value: Any) -> Iterator[str]:
    if isinstance(value, bool):
        yield name if value else name.replace("--", "--no-", 1)
        return
    for one in value if isinstance(value, list) else [value]:
        yield name
        yield str(one)
