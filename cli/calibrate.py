"""`pseudolabel calibrate`."""

import json
from pathlib import Path
from typing import Any

import click

from pseudolabel.cli.options import config_from, config_options
from pseudolabel.cli.stages import config_file_option, json_option, run_argument
from pseudolabel.pipelines.run.paths import RunPaths
from pseudolabel.pipelines.tools.calibrate import CalibrateConfig


@click.command("calibrate")
@run_argument
@config_options(CalibrateConfig)
@config_file_option
@json_option
def calibrate(run: Path, config_file: Path | None, as_json: bool, **given: Any) -> None:
    """Learn from a small audited set what the scores of a run mean as expected mask IoU.

    The file goes into  fuse --calibration; the figures are of images that the calibration was not learned from.
    """
    from pseudolabel.pipelines.tools import calibrate as work

    figures = work.calibrate(RunPaths(run), config_from(CalibrateConfig, "calibrate", given, config_file))
    click.echo(json.dumps(figures) if as_json else work.format_calibration(figures))
