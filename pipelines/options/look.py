"""Options of `report`."""

from pathlib import Path

from pseudolabel.config import Config, option


class ReportConfig(Config):
    """What the page holds."""

    out: Path | None = option(None, "HTML file to write; default: report.html in the run folder", group="main")
    ground_truth: Path | None = option(None, "COCO file with true masks, under the ids of the boxes file", group="main")
    gallery: int = option(240, "how many objects have pictures on the page, at most", group="main", ge=0, le=2000)
