"""Options of `fuse`."""

from pathlib import Path
from typing import Literal

from pseudolabel.config import option
from pseudolabel.pipelines.options.base import StageConfig


class FuseConfig(StageConfig):
    """Options of `fuse`. Defaults follow the papers' equations; what they leave open was chosen by measurement."""

    sources: list[str] = option(
        [], "candidate tables to fuse, by name; all that the run has if not given", group="main"
    )
    ranking: Literal["bqr", "bpma"] = option(
        "bqr", "which candidates: Box-Quality Ranking, or NMS and assignment", group="paper"
    )
    candidates: str = option("10", "candidates per object and source: a number, or adaptive (2 to 10 by box area)",
                             pattern=r"^(adaptive|[1-9]\d{0,3})$", group="paper")  # fmt: skip
    min_iou: float = option(
        0.5,
        "least IoU of boxes: candidates whose box overlaps the object's less are not chosen",
        ge=0,
        le=1,
        group="paper",
    )
    scale: Literal["raw", "support"] = option(
        "raw", "box scores as given, or times agreement with other sources", group="paper"
    )
    balance: bool = option(
        True, "give every source the same weight, however many candidates it has; for qmf", group="paper"
    )
    share_guides: bool = option(
        True,
        "a source from which another of the sources has learned in n rounds counts 1/n beside it; for qmf",
        group="paper",
    )
    fusion: Literal["qmf", "vote", "best"] = option(
        "qmf", "candidates to one mask: Quality-aware Masks Fusion, majority vote, or the best one", group="paper"
    )
    score: Literal["auto", "consensus", "expected", "mqs", "mcs", "mcs-paper", "code"] = option(
        "auto", "how a fused mask is scored: the IoU that the mask, its sources and their consistency let expect "
        "(expected: the mask's alone), "
        "BoxSeg's, BoxTeacher's or the released score; "
        "auto: consensus of several tables, expected of one; mqs where objects have to be found", group="paper",
    )  # fmt: skip
    tau_box: float = option(0.1, "candidates need a larger box score", ge=0, lt=1, group="paper")
    tau_pixel: float | None = option(
        None, "pixels need a larger fused probability; default: 0.5, and up to 0.6 where qmf fuses several sources",
        gt=0, lt=1, group="paper",
    )  # fmt: skip
    tau: float | None = option(None, "sets both thresholds, as BoxSeg's paper has it", gt=0, lt=1, group="paper")
    refine: Literal["none", "tight", "color"] = option(
        "color", "fit the mask to its box's sides (tight), and before that to the photograph's colours (color)"
    )
    smallest_part: float = option(0.02, "parts below this share of the largest one are dropped", ge=0, le=1)
    largest_pinhole: float = option(0.005, "holes below this share of the mask are filled", ge=0, le=1)
    exclusive: Literal["none", "class", "all"] = option(
        "class",
        "none: a pixel may belong to several objects; class: to one object of each class; all: to one of all",
        group="main",
    )
    class_margin: float = option(
        0.3, "where the segmenter knows both classes, an object yields a pixel to one of another class if the sources' "
        "mean probability for it is lower by more than this; 1: never; with exclusive class", ge=0, le=1, group="paper",
    )  # fmt: skip
    upright: bool = option(
        True,
        "images show the ground below: of two objects that claim a pixel, the one that begins lower is in front",
        group="main",
    )
    unsure_band: float = option(
        0.35, "pixels whose probability is less than this away from 1/2 are noted as unsure; 0 = none", ge=0, le=0.5
    )
    keep_score: float | None = option(
        None, "masks from this score on are kept; on the calibrated scale if there is one. "
        "Default: 0.5 there and for the papers' scores, 0.85 for consensus, 0.8 for expected", ge=0, group="main",
    )  # fmt: skip
    review_score: float | None = option(
        None, "masks below this score become box_only, from there up to keep_score review. "
        "Default: 0.3 there and for the papers' scores, 0.6 for consensus, 0.65 for expected", ge=0, group="main",
    )  # fmt: skip
    min_area_px: int = option(4, "smaller masks become box_only", ge=0)
    calibration: Path | None = option(None, "a file that `calibrate` wrote", group="main")
