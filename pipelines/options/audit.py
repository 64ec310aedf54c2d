"""Options of `audit`."""

from pathlib import Path

from pseudolabel.audit.kinds import Fact
from pseudolabel.config import Config, option


class AuditConfig(Config):
    """What is looked at, and what is too much."""

    images: Path | None = option(None, "folder of images, for the pictures of the worst", group="main")
    run: Path | None = option(
        None, "a run over the same images: its label maps are evidence, its fused masks where it has these boxes",
        group="main",
    )  # fmt: skip
    out: Path = option(Path("audit"), "folder that takes issues.csv, issues.json and pictures", group="main")
    pictures: int = option(24, "how many pictures: of the worst", group="main", needs={"images": ()}, ge=0, le=10_000)
    least_score: float = option(0.0, "lower scores are left out: of the issues", group="main", ge=0, le=1)
    fail_on: list[Fact] = option(
        [],
        "end with exit code 5 where there is an issue of this kind, of those that the boxes alone show",
        group="main",
    )
