"""What is to be done with a pseudo label: train on its mask, only on its box, on neither, or look at it first."""

from dataclasses import dataclass
from typing import Literal

Decision = Literal["keep", "box_only", "ignore", "review"]


@dataclass(frozen=True, slots=True)
class Limits:
    """Scores from which a mask is kept or worth a look; on the calibrated scale where there is one."""

    keep: float
    review: float
    min_area_px: int = 4  # a smaller mask has no shape


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
