"""`pseudolabel run-shard`: what a task of a scheduler calls; people use the commands of the stages."""

from pathlib import Path

import click

from pseudolabel.cli.commands import own_command
from pseudolabel.errors import IncompleteError, InputError


@own_command(
    "run-shard",
    click.Argument(["job"], type=click.Path(path_type=Path)),
    click.Argument(["shards"], type=click.Path(path_type=Path)),
    click.Option(["--entry"], type=click.IntRange(min=0), required=True, help="which list of the file is this task's"),
    click.Option(["--cores"], type=click.IntRange(min=1), default=1, help="worker processes where the work is on CPU"),
    click.Option(["--stage"], required=True, help="the stage that JOB has to name: a file alone cannot choose code"),
)
def run_shard(job: Path, shards: Path, entry: int, cores: int, stage: str) -> None:
    from pseudolabel.pipelines.engines.task import read_entry, read_job, run_task
    from pseudolabel.pipelines.graph import STAGES
    from pseudolabel.pipelines.runner import compress, failure_reason

    wanted = read_entry(shards, entry)
    its_job = read_job(job)
    if its_job.stage != stage:
        raise InputError(f"{job}: is of the stage {its_job.stage!r:.60}, expected {stage}")
    STAGES.trust(stage)
    click.echo(f"{its_job.stage}: shards {compress(wanted)} of {its_job.run_root}", err=True)
    failed = run_task(its_job, wanted, cores=cores)
    if failed:
        raise IncompleteError("; ".join(f"shard {shard:05d}: {failure_reason(its_job, shard)}" for shard in failed))
