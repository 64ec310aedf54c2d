"""`pseudolabel add-candidates`."""

import json
from pathlib import Path
from typing import Any

import click

from pseudolabel.cli.options import config_from, config_options
from pseudolabel.cli.stages import config_file_option, json_option, overwrite_option, run_argument
from pseudolabel.pipelines.options.add_candidates import AddCandidatesConfig
from pseudolabel.pipelines.run.paths import RunPaths


@click.command("add-candidates")
@run_argument
@config_options(AddCandidatesConfig)
@config_file_option
@overwrite_option
@json_option
def add_candidates(run: Path, config_file: Path | None, overwrite: bool, as_json: bool, **given: Any) -> None:
    """Masks that another program made, as one more source of fuse.

    Every mask is checked; what is left out is counted and named.
    """
    from pseudolabel.pipelines.tools import add_candidates as work

    config = config_from(AddCandidatesConfig, "add-candidates", given, config_file)
    added = work.add_candidates(RunPaths(run), config, overwrite=overwrite)
    click.echo(json.dumps(added.as_dict()) if as_json else work.format_added(added))
