"""`pseudolabel predict` and `pseudolabel export-model`."""

import json
from pathlib import Path
from typing import Any

import click

from pseudolabel.cli.options import config_from, config_options
from pseudolabel.cli.stages import config_file_option, json_option
from pseudolabel.pipelines.tools.export_model import ExportModelConfig
from pseudolabel.pipelines.tools.predict import PredictConfig

weights_argument = click.argument("weights", type=click.Path(path_type=Path), metavar="STUDENT")


@click.command("predict")
@weights_argument
@config_options(PredictConfig)
@config_file_option
@json_option
def predict(weights: Path, config_file: Path | None, as_json: bool, **given: Any) -> None:
    """Instances of every image of a folder by a trained student: COCO results and pictures.

    STUDENT is a file such as RUN/models/student.safetensors.
    """
    from pseudolabel.pipelines.tools.predict import predict as run_predict

    summary = run_predict(weights, config_from(PredictConfig, "predict", given, config_file))
    click.echo(json.dumps(summary) if as_json else _predict_line(summary))


@click.command("export-model")
@weights_argument
@config_options(ExportModelConfig)
@config_file_option
@json_option
def export_model(weights: Path, config_file: Path | None, as_json: bool, **given: Any) -> None:
    """A trained student as an ONNX file, checked against torch, or as a torch.export program.

    STUDENT is a file such as RUN/models/student.safetensors.
    """
    from pseudolabel.pipelines.tools.export_model import export_model as run_export

    summary = run_export(weights, config_from(ExportModelConfig, "export-model", given, config_file))
    click.echo(json.dumps(summary) if as_json else _export_line(summary))


def _predict_line(summary: dict[str, Any]) -> str:
    line = f"predict: {summary['instances']} instances on {summary['images']} images, {summary['rejected']} unreadable"
    figures = summary.get("figures", {})
    return "\n".join([line, *(f"{name}: {value:.3f}" for name, value in figures.items() if value is not None)])


def _export_line(summary: dict[str, Any]) -> str:
    lines = []
    if "onnx" in summary:
        lines.append(f"{summary['onnx']}: differs from torch by at most {summary['largest_difference']:.1e}")
    if "torch_export" in summary:
        lines.append(summary["torch_export"])
    return "\n".join(lines)
