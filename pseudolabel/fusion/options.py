"""Options of the fusion, for the command line, run files and Python alike; what they mean is in `settings`."""

from pathlib import Path
from typing import Literal

from pseudolabel.config import Config, Values, option

NOT_GIVEN = Values("left out", lambda value: value is None)


class FuseOptions(Config):
    """How candidates become one scored mask. Defaults follow the papers' equations; what they leave open was chosen by
    measurement.
    """

    target_precision: float = option(
        0.85, "choose the score from which this share of masks is good: from there on they are kept", group="main",
        needs={"keep_score": NOT_GIVEN, "score": ("auto", "evidence")}, gt=0, lt=1,
    )  # fmt: skip
    at_iou: float = option(
        0.75, "what a good mask is: its IoU with the true one", group="main",
        needs={"keep_score": NOT_GIVEN, "score": ("auto", "evidence")}, gt=0, lt=1,
    )  # fmt: skip
    keep_score: float | None = option(
        None, "masks from this score on are kept; on the calibrated scale if there is one. "
        "Default: what target_precision asks for; 0.5 for the papers' scores, 0.85 for consensus, 0.8 for expected",
        ge=0, le=1,
    )  # fmt: skip
    review_score: float | None = option(
        None, "masks below this score are box_only, from there up to the kept ones review. "
        "Default: 0.4; 0.3 for the papers' scores, 0.6 for consensus, 0.65 for expected", ge=0, le=1
    )  # fmt: skip
    calibration: Path | None = option(None, "a file that `calibrate` wrote", group="main")
    exclusive: Literal["none", "class", "all"] = option(
        "class", "none: a pixel may belong to several objects; class: to one object of each class; all: to one of all",
        group="main",
    )  # fmt: skip
    upright: bool = option(
        True, "images show the ground below: of two objects that claim a pixel, the one that begins lower is in front",
        group="main", needs={"exclusive": ("class", "all")},
    )  # fmt: skip
    class_margin: float = option(
        0.3, "where the segmenter knows both classes, an object yields a pixel to one of another class if the sources' "
        "mean probability for it is lower by more than this; 1: never", needs={"exclusive": ("class",)}, ge=0, le=1
    )  # fmt: skip
    refine: Literal["none", "tight", "color"] = option(
        "color", "fit the mask to its box's sides (tight), and before that to the photograph's colours (color)"
    )
    smallest_part: float = option(0.02, "parts below this share of the largest one are dropped", ge=0, le=1)
    largest_pinhole: float = option(0.005, "holes below this share of the mask are filled", ge=0, le=1)
    unsure_band: float = option(
        0.35, "pixels whose probability is less than this away from 1/2 are noted as unsure; 0 = none", ge=0, le=0.5
    )
    min_area_px: int = option(4, "smaller masks are box_only", ge=0)
    balance: bool = option(
        True, "give every source the same weight, however many candidates it has", needs={"fusion": ("qmf",)}
    )
    ranking: Literal["bqr", "bpma"] = option(
        "bqr", "which candidates: Box-Quality Ranking, or NMS and assignment", group="paper"
    )
    per_source: str = option(
        "10", "candidates of every source for an object: a number, or adaptive (2 to 10 by box area)", group="paper",
        needs={"ranking": ("bqr",)}, pattern=r"^(adaptive|[1-9]\d{0,3})$",
    )  # fmt: skip
    min_iou: float = option(
        0.5,
        "least IoU of boxes: candidates whose box overlaps the object's less are not chosen",
        group="paper",
        ge=0,
        le=1,
    )
    box_scores: Literal["raw", "support"] = option(
        "raw", "box scores as given, or times agreement with other sources", group="paper"
    )
    fusion: Literal["qmf", "vote", "best"] = option(
        "qmf", "candidates to one mask: Quality-aware Masks Fusion, majority vote, or the best one", group="paper"
    )
    score: Literal["auto", "evidence", "consensus", "expected", "mqs", "mcs", "mcs-paper", "code"] = option(
        "auto", "how a fused mask is scored: its expected IoU, learned on several data sets from the evidence for it; "
        "what its sources' probabilities say (consensus) or its own (expected); BoxSeg's, BoxTeacher's or the released "
        "score; auto: evidence, mqs where objects have to be found", group="paper"
    )  # fmt: skip
    tau_box: float = option(0.1, "candidates need a larger box score", group="paper", ge=0, lt=1)
    tau_pixel: float | None = option(
        None, "pixels need a larger fused probability; default: 0.5, and up to 0.6 where qmf fuses several sources",
        group="paper", gt=0, lt=1,
    )  # fmt: skip
