"""Options of `report`, `diff` and `doctor`."""

from pathlib import Path

from pseudolabel.config import Config, option
from pseudolabel.pipelines.options.stages.infer_semantic import SegmenterConfig


class ReportConfig(Config):
    """What the page holds."""

    out: Path | None = option(None, "HTML file to write; default: report.html in the run folder", group="main")
    ground_truth: Path | None = option(None, "COCO file with true masks, under the ids of the boxes file", group="main")
    gallery: int = option(240, "how many objects have pictures on the page, at most", group="main", ge=0, le=2000)


class DiffConfig(Config):
    """What is compared with what, and what may have changed at most."""

    base: Path = option(..., "run folder that the run is compared with", group="main")
    objects: int = option(
        50, "how many objects on the sheet, those whose masks changed most; 0 = no sheet", group="main", ge=0, le=400
    )
    min_mean_iou: float | None = option(
        None, "fail with exit code 5 below this mean IoU, of masks before and now", group="main", ge=0, le=1
    )
    min_mean_score: float | None = option(
        None, "fail with exit code 5 below this mean score of the run", group="main", ge=0, le=1
    )
    max_drift: float | None = option(
        None, "fail with exit code 5 above this drift of the scores: PSI, where 0.1 is little and 0.25 is much",
        group="main", ge=0,
    )  # fmt: skip


class DoctorConfig(SegmenterConfig):
    """What is looked at."""

    run: Path | None = option(None, "run folder to look at, too; with --images, annotations", group="main")
    images: str | None = option(
        None, "folder of images that no run has yet, as `shard` takes it: a sample of them is opened", group="main"
    )
    model: str | None = option(
        None, "which model: a segmenter to try, as `infer-semantic` takes it; does it work, and which boxes does it "
        "know? Default: the run's own, unopened where its label maps are there", group="main",
    )  # fmt: skip

    @property
    def annotations(self) -> Path | None:
        """What `run` is beside images: their annotations."""
        return None if self.images is None else self.run
