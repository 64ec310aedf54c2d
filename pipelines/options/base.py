"""Options that every stage has."""

from pseudolabel.config import Config, option

TABLE_NAME = r"^[a-z0-9][a-z0-9_-]{0,63}$"  # of a candidate table that a command line names
DEVICE = r"^(auto|cpu|cuda(:\d+)?)$"


class StageConfig(Config):
    """Options that every stage has; none of them can change a result."""

    workers: int = option(
        0, "worker processes; 0 = one per GPU, else one per core", changes_result=False, group="machine", ge=0
    )
    device: str = option("auto", "auto, cpu, cuda or cuda:N", changes_result=False, group="machine", pattern=DEVICE)
    max_reject_rate: float = option(
        0.05,
        "more rejected images or boxes than this share end the run with code 3",
        changes_result=False,
        group="machine",
        ge=0,
        le=1,
    )
