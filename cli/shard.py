"""`pseudolabel shard`."""

from pathlib import Path
from typing import Any

import click
import yaml

from pseudolabel.cli.options import config_options, values_from
from pseudolabel.cli.stages import (
    config_file_option,
    engine_option,
    json_option,
    overwrite_option,
    part_options,
    print_config_option,
    print_summaries,
    run_argument,
    shards_of_this_worker,
)
from pseudolabel.config import parse_config, split_values
from pseudolabel.pipelines.engines.base import EngineOptions
from pseudolabel.pipelines.graph import load_stage
from pseudolabel.pipelines.run.make_plan import PlanConfig
from pseudolabel.pipelines.run.paths import RunPaths

_STAGE_CONFIG = load_stage("shard").config_class


@click.command("shard")
@run_argument
@config_options(PlanConfig)
@config_options(_STAGE_CONFIG)
@part_options
@config_file_option
@engine_option
@overwrite_option
@print_config_option
@json_option
def shard(
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
    """Make a run folder: assign images to shards, open and check every image and annotation.

    RUN is a new folder, or one with the same plan. What cannot be used is a row with its reason.
    """
    from pseudolabel.pipelines.run.make_plan import make_plan
    from pseudolabel.pipelines.runner import RunOptions, run_stage

    plan_values, stage_values = split_values(
        values_from("shard", given, config_file), PlanConfig, _STAGE_CONFIG, where="shard"
    )
    plan_config = parse_config(PlanConfig, plan_values, where="shard")
    stage_config = parse_config(_STAGE_CONFIG, stage_values, where="shard")
    if print_config:
        merged = plan_config.model_dump(mode="json") | stage_config.model_dump(mode="json")
        click.echo(yaml.safe_dump(merged, sort_keys=False), nl=False)
        return
    paths = RunPaths(run)
    for note in make_plan(paths, plan_config).notes:
        click.echo(f"note: {note}", err=True)
    options = RunOptions(engine, overwrite, shards_of_this_worker(paths, engine, shard_index, num_shards))
    summary = run_stage(paths, "shard", stage_config, options)
    print_summaries([summary.as_dict()], as_json)
