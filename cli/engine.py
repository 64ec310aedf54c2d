"""Options that say where the shards of a command run."""

import functools
from typing import Any

import click

from pseudolabel.pipelines.engines.base import ENGINES, EngineOptions

_OPTIONS = (
    click.option("--engine", type=click.Choice(list(ENGINES)), default="local", show_default=True),
    click.option(
        "--sbatch-arg", "sbatch_args", multiple=True, metavar="ARG", help="slurm: passed to sbatch; may be repeated."
    ),
    click.option(
        "--shards-per-task", type=click.IntRange(min=1), default=1, help="slurm: shards that share one start."
    ),
    click.option("--wait/--no-wait", default=True, help="slurm: wait for the tasks, or print their ids and leave."),
    click.option(
        "--ray-address", default="local", metavar="ADDRESS", help="ray: a running cluster's HOST:PORT, auto, or local."
    ),
)


def engine_option(function: Any) -> Any:
    """`--engine` and the options of single engines; the command gets them as `engine: EngineOptions`."""

    @functools.wraps(function)
    def with_engine(
        *args: Any,
        engine: str,
        sbatch_args: tuple[str, ...],
        shards_per_task: int,
        wait: bool,
        ray_address: str,
        **kwargs: Any,
    ) -> Any:
        options = EngineOptions(
            name=engine, shards_per_task=shards_per_task, wait=wait, sbatch_args=sbatch_args, ray_address=ray_address
        )
        return function(*args, engine=options, **kwargs)

    for option in reversed(_OPTIONS):
        with_engine = option(with_engine)
    return with_engine
