"""Options of `infer-teacher`."""

from pathlib import Path

from pseudolabel.config import option
from pseudolabel.pipelines.options.base import TABLE_NAME, StageConfig


class InferTeacherConfig(StageConfig):
    """Options of `infer-teacher`."""

    weights: Path | None = option(
        None, "trained weights: of a teacher or student; default: the run's teacher; student: its student", group="main"
    )
    name: str = option("teacher", "the table below candidates/ that is written", group="main", pattern=TABLE_NAME)
    per_box: int = option(
        10, "masks per given box: at most; the box-conditioned teacher has 10 views of one", group="main", ge=1, le=100
    )
    detections: int | None = option(
        None, "most objects of an image: of one without given boxes; default: as in training, else 100", ge=1
    )
    threads: int = option(
        0, "CPU threads: of one worker; 0 = torch's choice", changes_result=False, group="machine", ge=0
    )
