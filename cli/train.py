"""`pseudolabel train-siseg`, `pseudolabel train-teacher` and `pseudolabel train-student`."""

import json
from pathlib import Path
from typing import Any

import click
import yaml

from pseudolabel.cli.options import config_options, values_from
from pseudolabel.cli.stages import (
    config_file_option,
    json_option,
    overwrite_option,
    print_config_option,
    run_argument,
    summary_line,
)
from pseudolabel.config import parse_config
from pseudolabel.pipelines.graph import TRAINERS
from pseudolabel.pipelines.run.paths import RunPaths

_TEXTS = {
    "train-siseg": "Learn the displacement field and the class-agnostic boundary from the run's label maps.",
    "train-teacher": "Learn a mask teacher from the run's boxes alone.",
    "train-student": "Learn an instance segmenter from the run's pseudo labels, each mask by its score.",
}


def training_command(name: str, text: str) -> Any:
    """The click command of a trainer, with an option for each field of its config."""
    trainer = TRAINERS[name]
    classes = [trainer.config_class({trainer.choice: choice}) for choice in trainer.choices or ("",)]

    @click.command(name, help=text)
    @run_argument
    @config_options(*classes)
    @config_file_option
    @overwrite_option
    @print_config_option
    @json_option
    def command(
        run: Path, config_file: Path | None, overwrite: bool, print_config: bool, as_json: bool, **given: Any
    ) -> None:
        from pseudolabel.pipelines.trainers.base import run_training
        from pseudolabel.training.processes import is_first_process

        values = values_from(name, given, config_file)
        config = parse_config(trainer.config_class(values), values, where=name)
        if print_config:
            click.echo(yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False), nl=False)
            return
        summary = run_training(RunPaths(run), name, config, overwrite=overwrite).as_dict()
        if is_first_process():
            click.echo(json.dumps(summary) if as_json else summary_line(summary))

    return command


def __getattr__(attribute: str) -> Any:
    name = attribute.replace("_", "-")
    if name not in _TEXTS:
        raise AttributeError(attribute)
    return training_command(name, _TEXTS[name])
