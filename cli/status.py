"""`pseudolabel status` and `pseudolabel verify`."""

import json
from pathlib import Path

import click

from pseudolabel.cli.stages import json_option, run_argument
from pseudolabel.errors import IncompleteError
from pseudolabel.pipelines.paths import RunPaths


@click.command("status")
@run_argument
@json_option
@click.option("--missing", "missing_of", metavar="TABLE", help="Print only the missing shards of a table, as 3,17-19.")
def status(run: Path, as_json: bool, missing_of: str | None) -> None:
    """What is done, missing, damaged, failed and rejected, read from the files of the run."""
    from pseudolabel.pipelines.plan import read_plan
    from pseudolabel.pipelines.runner import compress
    from pseudolabel.pipelines.status import reject_reasons, run_status, table_status

    paths = RunPaths(run)
    if missing_of:
        table = table_status(paths, read_plan(paths), missing_of)
        click.echo(compress(table.missing + table.damaged))
        return
    tables = run_status(paths)
    if as_json:
        rejects = {table.table: dict(reject_reasons(paths, table.table)) for table in tables}
        click.echo(json.dumps({"tables": [table.as_dict() for table in tables], "rejects": rejects}))
        return
    click.echo(f"{'table':<22}{'done':>12}{'in':>10}{'ok':>10}{'rejected':>10}")
    for table in tables:
        shards = f"{table.done}/{table.shards}"
        click.echo(f"{table.table:<22}{shards:>12}{table.n_in:>10}{table.n_ok:>10}{table.n_rejected:>10}")
        if table.missing or table.damaged:
            click.echo(f"  missing {compress(table.missing) or '-'}, damaged {compress(table.damaged) or '-'}")
        if table.mixed_fingerprints:
            click.echo("  parts of more than one config: run the stage with --overwrite")
        for reason, count in reject_reasons(paths, table.table).most_common():
            click.echo(f"  rejected {count}: {reason}")
        for shard, error in table.failures.items():
            click.echo(f"  shard {shard:05d} failed: {error}")


@click.command("verify")
@run_argument
@json_option
def verify(run: Path, as_json: bool) -> None:
    """Read every page of every part; nothing damaged, nothing missing, nothing lost."""
    from pseudolabel.pipelines.status import verify_run

    problems = verify_run(RunPaths(run))
    if as_json:
        click.echo(json.dumps({"problems": problems}))
    elif not problems:
        click.echo("every part is there, verifies and adds up")
    if problems:
        raise IncompleteError(f"{len(problems)} problems: " + "; ".join(problems[:5]))
