"""The commands of the stages: options from the stage's config, one call to the runner, a line about the result."""

import json
import os
from pathlib import Path
from typing import Any

import click
import yaml

from pseudolabel.cli.engine import engine_option
from pseudolabel.cli.options import config_from, config_options
from pseudolabel.errors import ConfigError
from pseudolabel.pipelines.engines.base import EngineOptions
from pseudolabel.pipelines.graph import load_stage
from pseudolabel.pipelines.run.paths import RunPaths

run_argument = click.argument("run", type=click.Path(path_type=Path), metavar="RUN")
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
config_file_option = click.option(
    "--config", "config_file", type=click.Path(path_type=Path), help="A run file; its section of this command is read."
)
print_config_option = click.option("--print-config", is_flag=True, help="Print the effective config and stop.")
overwrite_option = click.option("--overwrite", is_flag=True, help="Make outputs of another config again.")


def part_options(function: Any) -> Any:
    """`--shard-index` and `--num-shards`: work on one part of the shards."""
    text = "This worker's part, from 0; default from PSEUDOLABEL_SHARD_INDEX or the scheduler's variables."
    function = click.option("--num-shards", type=click.IntRange(min=1), help="How many workers share the shards.")(
        function
    )
    return click.option("--shard-index", type=click.IntRange(min=0), help=text)(function)


def stage_command(name: str, text: str) -> Any:
    """The click command of a stage, with an option for each field of its config."""
    config_class = load_stage(name).config_class

    @click.command(name, help=text)
    @run_argument
    @config_options(config_class)
    @part_options
    @config_file_option
    @engine_option
    @overwrite_option
    @print_config_option
    @json_option
    def command(
        run: Path,
        config_file: Path | None,
        shard_index: int | None,
        num_shards: int | None,
        engine: EngineOptions,
        overwrite: bool,
        print_config: bool,
        as_json: bool,
        **given: Any,
    ) -> None:
        from pseudolabel.pipelines.chain import stages_behind
        from pseudolabel.pipelines.runner import RunOptions, run_stage

        config = config_from(config_class, name, given, config_file)
        if print_config:
            click.echo(yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False), nl=False)
            return
        paths = RunPaths(run)
        options = RunOptions(engine, overwrite, shards_of_this_worker(paths, engine, shard_index, num_shards))
        stages = [(name, config), *stages_behind(paths, name, config)]
        summaries = [run_stage(paths, stage, its_config, options).as_dict() for stage, its_config in stages]
        print_summaries(summaries, as_json)

    return command


def shards_of_this_worker(
    run: RunPaths, engine: EngineOptions, shard_index: int | None, num_shards: int | None
) -> tuple[int, ...] | None:
    """The shards that this process shall do, None for all; where the index came from is said on stderr.

    A scheduler's variables are asked only by a command that works itself, not by one that hands work to a scheduler.
    """
    from pseudolabel.pipelines.run.plan import read_plan
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


def print_summaries(summaries: list[dict[str, Any]], as_json: bool) -> None:
    """One JSON object of all stages, or a line about each."""
    if as_json:
        click.echo(json.dumps({"stages": summaries}))
        return
    for summary in summaries:
        click.echo(summary_line(summary))


def summary_line(summary: dict[str, Any]) -> str:
    """One line for people about a stage, a training or an evaluation that ended."""
    if "figures" in summary:
        from pseudolabel.pipelines.tools.evaluate import format_figures

        return format_figures(summary["figures"])
    if "rounds" in summary:
        from pseudolabel.pipelines.rounds import format_rounds

        return format_rounds(summary["rounds"])
    if "model" in summary:
        return f"{summary['stage']}: {summary['model']} {'trained' if summary['trained'] else 'was trained already'}"
    if summary["handed_over"]:
        return f"{summary['stage']}: handed over as {', '.join(summary['handed_over'])}; run it again to see it through"
    return (
        f"{summary['stage']}: {summary['n_ok']} of {summary['n_in']} done, {summary['n_rejected']} rejected; "
        f"{summary['attempted']} of {summary['shards']} shards worked on in {summary['seconds']:.1f} s "
        f"on {summary['device']}"
    )


_TEXTS = {
    "infer-semantic": (
        "Label maps of every image by a pretrained segmenter, and from them a candidate for every box.\n\n"
        "RUN is a run folder made by `pseudolabel shard`."
    ),
    "infer-colors": (
        "A candidate mask for every box from the box and the image's colours alone. Needs no model.\n\n"
        "A source of its own beside a teacher, where no segmenter knows the classes: infer-semantic does the same for "
        "the classes that its segmenter does not know."
    ),
    "infer-prompted": (
        "A pretrained model's mask for every box: SAM and its kind, or a salience model on the box's crop.\n\n"
        "A source beside others; fuse weighs, scores and calibrates them together."
    ),
    "infer-siseg": "Instances out of label maps, by displacement field and boundary.",
    "infer-boundary": (
        "How probable a boundary between things is, everywhere in every image, by a model that train-siseg wrote.\n\n"
        "`fuse --refine walk` spreads masks up to these boundaries; nothing else reads them."
    ),
    "infer-teacher": "Candidate masks of a trained teacher for every box.",
    "fuse": (
        "One scored mask per object out of all candidates of the run.\n\n"
        "Writes pseudo/*.parquet, pseudo/instances.json (COCO) and pseudo/results.json."
    ),
}


def __getattr__(attribute: str) -> Any:
    """Each command is made when it is asked for, so that one stage's imports do not slow another's help."""
    name = attribute.replace("_", "-")
    if name not in _TEXTS:
        raise AttributeError(attribute)
    return stage_command(name, _TEXTS[name])
