"""`pseudolabel evaluate`."""

import json
from pathlib import Path
from typing import Any

import click

from pseudolabel.cli.options import config_from, config_options
from pseudolabel.cli.stages import config_file_option, json_option, run_argument
from pseudolabel.errors import QualityGateError
from pseudolabel.pipelines.run.paths import RunPaths
from pseudolabel.pipelines.tools.evaluate import EvaluateConfig


@click.command("evaluate")
@run_argument
@config_options(EvaluateConfig)
@click.option("--min-mean-iou", type=click.FloatRange(0, 1), help="Fail with exit code 5 below this mean IoU.")
@config_file_option
@json_option
def evaluate(run: Path, config_file: Path | None, min_mean_iou: float | None, as_json: bool, **given: Any) -> None:
    """Mask IoU per object and COCO mask AP of a run's pseudo labels, always beside "the box is the mask".

    The truth's annotations are matched by id, so they must be those whose boxes were the input.
    """
    from pseudolabel.pipelines.tools.evaluate import format_figures, run_evaluation

    figures = run_evaluation(RunPaths(run), config_from(EvaluateConfig, "evaluate", given, config_file))
    click.echo(json.dumps(figures) if as_json else format_figures(figures))
    if min_mean_iou is not None and figures["mean_iou"] < min_mean_iou:
        raise QualityGateError(f"mean IoU {figures['mean_iou']:.3f} is below --min-mean-iou {min_mean_iou:g}")
