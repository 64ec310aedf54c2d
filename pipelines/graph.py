"""The stages by name, and the order in which a run goes through them."""

from pseudolabel.pipelines.stage import Stage
from pseudolabel.registry import Registry

STAGES = Registry(
    "stage",
    {
        "shard": "pseudolabel.pipelines.stages.shard:ShardStage",
        "infer-semantic": "pseudolabel.pipelines.stages.infer_semantic:InferSemanticStage",
        "semantic-candidates": "pseudolabel.pipelines.stages.semantic_candidates:SemanticCandidatesStage",
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
