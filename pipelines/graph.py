"""The stages by name, and the order in which a run goes through them."""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pseudolabel.pipelines.stage import Stage
from pseudolabel.registry import Registry
from pseudolabel.teachers.table import TRAINED
from pseudolabel.training.config import TrainConfig

STAGES = Registry(
    "stage",
    {
        "shard": "pseudolabel.pipelines.stages.shard:ShardStage",
        "infer-semantic": "pseudolabel.pipelines.stages.infer_semantic:InferSemanticStage",
        "semantic-candidates": "pseudolabel.pipelines.stages.semantic_candidates:SemanticCandidatesStage",
        "infer-colors": "pseudolabel.pipelines.stages.infer_colors:InferColorsStage",
        "infer-prompted": "pseudolabel.pipelines.stages.infer_prompted:InferPromptedStage",
        "infer-boundary": "pseudolabel.pipelines.stages.infer_boundary:InferBoundaryStage",
        "infer-siseg": "pseudolabel.pipelines.stages.infer_siseg:InferSisegStage",
        "infer-teacher": "pseudolabel.pipelines.stages.infer_teacher:InferTeacherStage",
        "fuse": "pseudolabel.pipelines.stages.fuse:FuseStage",
    },
)


def load_stage(name: str) -> type[Stage]:
    """The class of a stage.

    Raises:
        ConfigError: no such stage; the message names the nearest.
    """
    stage: type[Stage] = STAGES.load(name)
    return stage


@dataclass(frozen=True, slots=True)
class Trainer:
    """A training command: one model of the run, made from tables of the run."""

    config: str  # module:class of its config; with `variants`, of what nobody chose
    function: str  # module:function (run, config, folder of logs and checkpoints) -> path of the weights
    model: str  # the name below models/
    version: int  # raise it whenever the same input and config give other weights
    variants: str = ""  # module:function (values) -> config class, where an option chooses among several
    choice: str = ""  # that option
    choices: tuple[str, ...] = ()  # and its values

    def config_class(self, values: Mapping[str, Any]) -> type[TrainConfig]:
        """The class of the config that these values are meant for.

        Raises:
            ConfigError: an unknown choice; the message names the nearest.
        """
        found: type[TrainConfig] = (
            load_attribute(self.variants)(values) if self.variants else load_attribute(self.config)
        )
        return found


TRAINERS: dict[str, Trainer] = {
    "train-siseg": Trainer(
        config="pseudolabel.pipelines.trainers.siseg_options:TrainSisegConfig",
        function="pseudolabel.pipelines.trainers.siseg:train_siseg",
        model="siseg",
        version=2,
    ),
    "train-teacher": Trainer(
        config="pseudolabel.teachers.mal.config:MalConfig",
        function="pseudolabel.pipelines.trainers.teacher:train_teacher",
        model="teacher",
        version=7,
        variants="pseudolabel.pipelines.trainers.teacher:config_class",
        choice="method",
        choices=TRAINED,
    ),
    "train-student": Trainer(
        config="pseudolabel.pipelines.trainers.student_options:TrainStudentConfig",
        function="pseudolabel.pipelines.trainers.student:train_student",
        model="student",
        version=1,
    ),
}

# the order of a run; a run file's sections are a subset of these
ORDER = (
    "shard",
    "infer-semantic",
    "train-siseg",
    "infer-siseg",
    "infer-boundary",
    "infer-colors",
    "infer-prompted",
    "train-teacher",
    "infer-teacher",
    "fuse",
    "train-student",
    "evaluate",
)


def load_attribute(target: str) -> Any:
    """What `module:attribute` names."""
    module, _, attribute = target.partition(":")
    return getattr(importlib.import_module(module), attribute)
