"""`train-teacher`: a mask teacher, learned from the run's boxes alone; each method has options of its own."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pseudolabel.pipelines.run.paths import RunPaths
from pseudolabel.registry import load_target
from pseudolabel.teachers.config import MethodConfig
from pseudolabel.teachers.table import find_teacher, options_of
from pseudolabel.training.config import TrainConfig


def config_class(values: Mapping[str, Any]) -> type[TrainConfig]:
    """The options of the method that the values name, mal where they name none.

    Raises:
        ConfigError: no such method; the message names the nearest.
    """
    return options_of(str(values.get("method", "mal")))


def train_teacher(run: RunPaths, config: MethodConfig, folder: Path) -> Path:
    """Train and write `models/teacher.safetensors` with its config; a stopped training goes on from its checkpoint.

    Args:
        folder: of logs and checkpoints, of this training alone.

    Raises:
        ConfigError: no such method, or options that do not go together.
        InputError: the run has no box to learn from.
        NonFiniteLossError: a loss was NaN or infinite; names the images.
        SignalStopError: a signal ended the training between two steps.
    """
    weights: Path = load_target(find_teacher(config.method).train)(run, config, folder)
    return weights
