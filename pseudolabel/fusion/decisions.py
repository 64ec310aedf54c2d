"""What is to be done with a pseudo label: train on its mask, only on its box, on neither, or look at it first."""

from dataclasses import dataclass
from typing import Literal

from pseudolabel.fusion.evidence import Evidence
from pseudolabel.fusion.score_model import Chances, default_score_model

TARGET_PRECISION = 0.85  # share of the kept masks that are to be good
GOOD_IOU = 0.75  # what a good mask has with the truth
LEAST_SCORE = 0.4  # masks that promise less are worth no look: a student learns their box alone

_THIN = 0.35  # of the box
_CROWDED = 0.8  # of the box, covered by others
_DISAGREE = 0.6  # IoU between the sources
_NOT_FILLED = 0.8  # of the box, the extent of the mask

Decision = Literal["keep", "box_only", "ignore", "review"]


@dataclass(frozen=True, slots=True)
class Limits:
    """Scores from which a mask is kept or worth a look; on the calibrated scale where there is one."""

    keep: float
    review: float
    min_area_px: int = 4  # a smaller mask has no shape


def limits_for(
    chances: Chances,
    *,
    target: float = TARGET_PRECISION,
    at_iou: float = GOOD_IOU,
    review: float = LEAST_SCORE,
    min_area_px: int = 4,
) -> Limits:
    """Limits of expected IoU from which on the target share of the kept masks has `at_iou`.

    Raises:
        InputError: no score reaches it.
    """
    keep = chances.score_for(target, at_iou)
    return Limits(keep, min(review, keep), min_area_px)


def default_limits() -> Limits:
    """Those of the score that ships with the package."""
    return limits_for(default_score_model().chances)


@dataclass(frozen=True, slots=True)
class Verdict:
    """A decision and, in one word, why."""

    decision: Decision
    reason: str


CROWD = Verdict("ignore", "crowd")
COVERED = Verdict("ignore", "covered_by_others")
NO_CANDIDATE = Verdict("box_only", "no_candidate")
EMPTY_MASK = Verdict("box_only", "empty_mask")


def judge(score: float, area_px: int, limits: Limits) -> Verdict:
    """The verdict on a mask that is there."""
    if area_px < limits.min_area_px:
        return Verdict("box_only", "tiny")
    if score < limits.review:
        return Verdict("box_only", "low_score")
    if score < limits.keep:
        return Verdict("review", "doubtful_score")
    return Verdict("keep", "good_score")


def reasons(evidence: Evidence, agreement: float | None) -> list[str]:
    """What speaks against a mask, in words: `thin`, `crowded`, `sources_disagree`, `box_not_filled`.

    Args:
        agreement: mean IoU between the sources' masks, None where one alone speaks.
    """
    signs = {
        "thin": evidence.fill is not None and evidence.fill < _THIN,
        "crowded": evidence.covered is not None and evidence.covered > _CROWDED,
        "sources_disagree": agreement is not None and agreement < _DISAGREE,
        "box_not_filled": evidence.extent is not None and evidence.extent < _NOT_FILLED,
    }
    return [name for name, holds in signs.items() if holds]
