"""Options that many commands have beside those of their config: where the work runs, and what is printed."""

import os
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from string import Formatter
from typing import Any

import click

from pseudolabel.cli.help import GroupedOption
from pseudolabel.config import Config
from pseudolabel.errors import ConfigError
from pseudolabel.pipelines.graph import find_command
from pseudolabel.pipelines.options.engine import ENGINES, EngineOptions
from pseudolabel.pipelines.run.paths import RunPaths
from pseudolabel.registry import did_you_mean


def _known_engine(ctx: click.Context, param: click.Parameter, value: str) -> str:
    """An engine of the table, or of an installed package."""
    if value not in ENGINES:
        known = ", ".join(ENGINES)
        raise click.BadParameter(f"no engine called {value!r}{did_you_mean(value, ENGINES)} (known: {known})")
    return value


def run_argument() -> click.Argument:
    return click.Argument(["run"], type=click.Path(path_type=Path), metavar="RUN")


def json_option(group: str = "machine") -> click.Option:
    return GroupedOption(["--json", "as_json"], is_flag=True, group=group, help="print one JSON object on stdout")


def overwrite_option() -> click.Option:
    return GroupedOption(["--overwrite"], is_flag=True, help="replace what stands there: outputs of another config")


def dry_run_option() -> click.Option:
    return GroupedOption(["--dry-run"], is_flag=True, help="print what would run, on how much, and stop")


def config_options() -> list[click.Parameter]:
    """`--config` and `--print-config`."""
    return [
        GroupedOption(
            ["--config", "config_file"],
            type=click.Path(path_type=Path),
            group="more",
            value="PATH",
            help="a run file; its section of this command is read",
        ),
        GroupedOption(["--print-config"], is_flag=True, group="more", help="print the effective config and stop"),
    ]


def engine_options() -> list[click.Parameter]:
    """`--engine` and the options of single engines; see `engine_of`."""
    return [
        GroupedOption(
            ["--engine"], callback=_known_engine, default="local", group="machine", value="NAME",
            limits=["|".join(ENGINES), "default: local"], help="what runs the shards",
        ),
        GroupedOption(
            ["--sbatch-arg", "sbatch_args"], multiple=True, group="machine", value="ARG", limits=["may be repeated"],
            help="slurm: passed to sbatch",
        ),
        GroupedOption(
            ["--shards-per-task"], type=click.IntRange(min=1), default=1, group="machine", value="INT",
            limits=["x>=1", "default: 1"], help="slurm: shards that share one start",
        ),
        GroupedOption(
            ["--wait/--no-wait"], default=True, group="machine",
            help="slurm: wait for the tasks, or print their ids and leave",
        ),
        GroupedOption(
            ["--ray-address"], default="local", group="machine", value="ADDRESS",
            help="ray: a running cluster's HOST:PORT, auto, or local",
        ),
    ]  # fmt: skip


def engine_of(given: dict[str, Any]) -> EngineOptions:
    """The values of `engine_options`, taken out of what click parsed."""
    return EngineOptions(
        name=given.pop("engine"),
        shards_per_task=given.pop("shards_per_task"),
        wait=given.pop("wait"),
        sbatch_args=given.pop("sbatch_args"),
        ray_address=given.pop("ray_address"),
    )


def part_options() -> list[click.Parameter]:
    """`--shard-index` and `--num-shards`: work on one part of the shards; see `shards_of_this_worker`."""
    return [
        GroupedOption(
            ["--shard-index"], type=click.IntRange(min=0), group="machine", value="INT", limits=["x>=0"],
            help="this worker's part; default from PSEUDOLABEL_SHARD_INDEX or the scheduler's variables",
        ),
        GroupedOption(
            ["--num-shards"], type=click.IntRange(min=1), group="machine", value="INT", limits=["x>=1"],
            help="how many workers share the shards",
        ),
    ]  # fmt: skip


def shards_of_this_worker(
    run: RunPaths, engine: EngineOptions, shard_index: int | None, num_shards: int | None
) -> tuple[int, ...] | None:
    """The shards that this process shall do, None for all; where the index came from is said on stderr.

    A scheduler's variables are asked only by a command that works itself, not by one that hands work to a scheduler.
    """
    from pseudolabel.pipelines.planning.plan import read_plan
    from pseudolabel.pipelines.run.shard_index import INDEX_VARIABLES, worker_part

    told = engine.name in ("local", "inline") and any(os.environ.get(variable) for variable in INDEX_VARIABLES)
    if shard_index is None and not told:
        if num_shards is not None:
            raise ConfigError("--num-shards without --shard-index: which part is this worker's?")
        return None
    part = worker_part(shard_index, num_shards, os.environ)
    shards = part.shards(read_plan(run).num_shards)
    click.echo(f"part {part.index} of {part.count} (from {part.origin}): {len(shards)} shards", err=True)
    return shards


def print_yaml(values: Mapping[str, Any]) -> None:
    """Values as a section of a run file has them."""
    import yaml

    click.echo(yaml.safe_dump(dict(values), sort_keys=False), nl=False)


def tell_next(name: str, asked: Any, config: Config | None = None, *, line: str = "", has_boxes: bool = True) -> None:
    """What somebody would type next, on stderr: it is no part of the answer.

    Args:
        asked: the argument of the command, `{asked}` in the line of the table.
        config: its options, other names in braces.
        line: of the answer, `{next}`.
    """
    entry = find_command(name)
    following = "" if entry is None else entry.next if has_boxes else entry.next_bare or entry.next
    if following:
        places = {place for _, place, _, _ in Formatter().parse(following) if place and place != "next"}
        said = {place: _Said(asked if place == "asked" else getattr(config, place)) for place in places}
        click.echo(f"next: {following.format(next=line, **said)}", err=True)


@dataclass(frozen=True, slots=True)
class _Said:
    """A value as a line to type has it: `{images:DIR}` is what was said of `images`, else `DIR`."""

    value: Any

    def __format__(self, placeholder: str) -> str:
        return placeholder if self.value is None else shlex.quote(str(self.value))
