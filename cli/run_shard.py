"""`pseudolabel run-shard`: what a task of a scheduler calls; people use the commands of the stages."""

from pathlib import Path

import click

from pseudolabel.errors import IncompleteError


@click.command("run-shard")
@click.argument("job", type=click.Path(path_type=Path))
@click.argument("shards", type=click.Path(path_type=Path))
@click.option("--entry", type=click.IntRange(min=0), required=True, help="Which list of the file is this task's.")
@click.option("--cores", type=click.IntRange(min=1), default=1, help="Worker processes where the work is on the CPU.")
def run_shard(job: Path, shards: Path, entry: int, cores: int) -> None:
    """One attempt at the shards of one entry of SHARDS, for the stage and run that JOB names."""
    from pseudolabel.pipelines.engines.task import read_entry, read_job, run_task
    from pseudolabel.pipelines.runner import compress, failure_reason

    wanted = read_entry(shards, entry)
    its_job = read_job(job)
    click.echo(f"{its_job.stage}: shards {compress(wanted)} of {its_job.run_root}", err=True)
    failed = run_task(its_job, wanted, cores=cores)
    if failed:
        raise IncompleteError("; ".join(f"shard {shard:05d}: {failure_reason(its_job, shard)}" for shard in failed))
