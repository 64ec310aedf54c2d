"""`pseudolabel verify`."""

import json
from pathlib import Path

import click

from pseudolabel.cli import shared
from pseudolabel.cli.commands import own_command
from pseudolabel.errors import IncompleteError
from pseudolabel.pipelines.run.paths import RunPaths


@own_command("verify", shared.run_argument(), shared.json_option("main"))
def verify(run: Path, as_json: bool) -> None:
    from pseudolabel.pipelines.status import verify_run

    problems = verify_run(RunPaths(run))
    if as_json:
        click.echo(json.dumps({"problems": problems}))
    elif not problems:
        click.echo("every part is there, verifies and adds up")
    if problems:
        raise IncompleteError(f"{len(problems)} problems: " + "; ".join(problems[:5]))
