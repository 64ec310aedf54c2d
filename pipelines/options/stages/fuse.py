"""Options of `fuse`: those of the method, and which of the run's tables it reads."""

from pseudolabel.config import option
from pseudolabel.fusion.options import FuseOptions
from pseudolabel.pipelines.options.base import StageConfig


class FuseConfig(FuseOptions, StageConfig):
    """Options of `fuse`."""

    sources: list[str] = option(
        [], "candidate tables to fuse, by name; all that the run has if not given", group="main"
    )
    share_guides: bool = option(
        True, "a source from which another of the sources has learned in n rounds counts 1/n beside it",
        needs={"fusion": ("qmf",)},
    )  # fmt: skip
