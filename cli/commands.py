"""The click commands of the table's entries: a config's fields are their options, one call does the work."""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from pseudolabel.cli import shared
from pseudolabel.cli.help import HelpCommand
from pseudolabel.cli.options import options_of, values_from
from pseudolabel.config import Config, parse_config
from pseudolabel.optional import need_extra
from pseudolabel.pipelines.graph import COMMANDS, Configured, StageCommand, Tool, Trainer
from pseudolabel.pipelines.run.paths import RunPaths

Work = Callable[[str, Config, dict[str, Any]], None]


class ConfiguredCommand(HelpCommand):
    """A command with the options of its config; which those are may depend on what is said, as on `--method`."""

    def __init__(self, name: str, entry: Configured, values: Mapping[str, Any] | None = None) -> None:
        self.entry = entry
        self.config_class = entry.config_class(values or {})
        super().__init__(
            name,
            params=[
                *_arguments(entry, self.config_class),
                *_options(entry, self.config_class),
                *_further_options(entry),
            ],
            callback=self._run,
            help=help_text(entry),
            example=entry.example,
        )

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        if isinstance(self.entry, Trainer) and self.entry.variants:
            said = self._said(info_name, args, parent)
            if self.entry.config_class(said) is not self.config_class:
                return ConfiguredCommand(str(self.name), self.entry, said).make_context(
                    info_name, args, parent, **extra
                )
        return super().make_context(info_name, args, parent, **extra)

    def _said(self, info_name: str | None, args: Sequence[str], parent: click.Context | None) -> dict[str, Any]:
        """What the command line, the environment and the file say, as far as the options so far know it."""
        with self.context_class(
            self, info_name=info_name, parent=parent, resilient_parsing=True, ignore_unknown_options=True,
            allow_extra_args=True,
        ) as context:  # fmt: skip
            self.parse_args(context, list(args))
            given = {key: value for key, value in context.params.items() if key in self.config_class.model_fields}
            return values_from(str(self.name), given, context.params.get("config_file"))

    def _run(self, config_file: Path | None, print_config: bool, **given: Any) -> None:
        fields = self.config_class.model_fields
        values = values_from(str(self.name), {key: value for key, value in given.items() if key in fields}, config_file)
        config = parse_config(self.config_class, values, where=str(self.name))
        if print_config:
            shared.print_yaml(config.model_dump(mode="json"))
            return
        rest = {key: value for key, value in given.items() if key not in fields}
        (_run_tool if isinstance(self.entry, Tool) else _run_step)(str(self.name), config, rest)


def command_of(name: str, entry: Configured) -> click.Command:
    """The click command of an entry of the table."""
    return ConfiguredCommand(name, entry)


def help_text(entry: Any) -> str:
    """What the help of a command says between the example and the options."""
    return f"{entry.help}\n\n{entry.about}".rstrip()


def own_command(name: str, *params: click.Parameter) -> Callable[[Callable[..., Any]], HelpCommand]:
    """Decorates the function of a command that has no config; its help and its example are the table's."""

    def decorate(function: Callable[..., Any]) -> HelpCommand:
        entry = COMMANDS[name]

        def call(**given: Any) -> Any:
            if entry.extra:
                need_extra(entry.extra, name)
            return function(**given)

        return HelpCommand(
            name, params=list(params), callback=call, help=help_text(entry), example=entry.example,
            hidden=entry.hidden,
        )  # fmt: skip

    return decorate


def _arguments(entry: Configured, config_class: type[Config]) -> list[click.Parameter]:
    name, second = (entry.argument, entry.second) if isinstance(entry, Tool) else ("RUN", "")
    path = click.Path(path_type=Path)
    first = [click.Argument(["asked"], type=path, metavar=name)] if name else []
    if not second:
        return list(first)
    required = config_class.model_fields[second].is_required()
    metavar = second.upper() if required else f"[{second.upper()}]"
    return [*first, click.Argument([second], type=path, metavar=metavar, required=required)]


def _options(entry: Configured, config_class: type[Config]) -> list[click.Parameter]:
    """The fields of a config but the one that is an argument."""
    second = entry.second if isinstance(entry, Tool) else ""
    return [one for one in options_of(config_class) if one.name != second]


def _further_options(entry: Configured) -> list[click.Parameter]:
    options = [*shared.config_options(), shared.json_option()]
    if isinstance(entry, Tool):
        return options
    work: list[click.Parameter] = [shared.overwrite_option(), shared.dry_run_option()]
    if isinstance(entry, StageCommand):
        work += [*shared.part_options(), *shared.engine_options()]
    return [*work, *options]


def _run_step(name: str, config: Config, given: dict[str, Any]) -> None:
    from pseudolabel.pipelines.chain import Chain, plan_lines
    from pseudolabel.pipelines.planning.plan import read_plan
    from pseudolabel.pipelines.runner import RunOptions
    from pseudolabel.pipelines.steps import make_step

    step, run = make_step(name, config), RunPaths(given["asked"])
    if given["dry_run"]:
        click.echo("\n".join(plan_lines(Chain(run, (step,)))))
        return
    step.prepare(run)
    options, alone = RunOptions(overwrite=given["overwrite"]), "engine" not in given
    if not alone:
        engine = shared.engine_of(given)
        shards = shared.shards_of_this_worker(run, engine, given["shard_index"], given["num_shards"])
        options = RunOptions(engine, given["overwrite"], shards)
    summaries = list(step.run(run, options))
    if step.told_here():
        _print_summaries(summaries, as_json=given["as_json"], alone=alone)
        if not given["as_json"] and options.shards is None and not _handed_over(summaries):
            shared.tell_next(name, given["asked"], has_boxes=bool(read_plan(run).n_objects))


def _print_summaries(summaries: list[dict[str, Any]], *, as_json: bool, alone: bool) -> None:
    from pseudolabel.pipelines.steps import step_line

    if as_json:
        click.echo(json.dumps(summaries[0] if alone else {"stages": summaries}))
        return
    for summary in summaries:
        click.echo(step_line(summary))


def _handed_over(summaries: Sequence[Mapping[str, Any]]) -> bool:
    return any(summary.get("handed_over") for summary in summaries)


def _run_tool(name: str, config: Config, given: dict[str, Any]) -> None:
    from pseudolabel.pipelines.steps import ask, check, shown

    result = ask(name, given.get("asked"), config)
    click.echo(json.dumps(result, default=os.fspath) if given["as_json"] else shown(name, result))
    check(name, result, config)
    if not given["as_json"]:
        line = result.get("next", "") if isinstance(result, Mapping) else ""
        shared.tell_next(name, given.get("asked"), config, line=line)
