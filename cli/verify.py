"""`pseudolabel verify`."""

import json
from pathlib import Path

import click

from pseudolabel.cli import shared
from pseudolabel.cli.commands import own_command
from pseudolabel.cli.help import GroupedOption
from pseudolabel.errors import IncompleteError
from pseudolabel.pipelines.run.paths import RunPaths


@own_command(
    "verify",
    shared.run_argument(),
    GroupedOption(["--content"], is_flag=True, help="read every image, too: is its content what shard saw?"),
    shared.json_option("main"),
)
def verify(run: Path, content: bool, as_json: bool) -> None:
    from pseudolabel.pipelines.verify import verify_run

    problems = verify_run(RunPaths(run), content=content)
    if as_json:
        click.echo(json.dumps({"problems": problems}))
    elif not problems:
        click.echo("every part, model, config and export is there, is what was written, and adds up")
        shared.tell_next("verify", run)
    if problems:
        raise IncompleteError(f"{len(problems)} problems: " + "; ".join(problems[:5]))
