"""Counts over the pseudo labels of a run, made row by row."""

from array import array
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pseudolabel.metrics import calibration as measure
from pseudolabel.metrics.mask_iou import size_name
from pseudolabel.records import expected_iou

Row = dict[str, Any]
REVIEWED = "reviewed"  # the reason of what a person decided
DECISIONS = ("keep", "review", "box_only", "ignore")
BINS = 20  # of the histograms of scores
SIZES = ("small", "medium", "large")


def reasons_of(row: Row) -> list[str]:
    """Why a mask deserves a look, or why it was decided so; each a word."""
    return [reason for reason in [row["decision_reason"], *(row.get("reasons") or ())] if reason]


@dataclass(slots=True)
class Group:
    """Some of the objects: of a class, of a size, of the same sources."""

    decisions: Counter[str] = field(default_factory=Counter)
    scores: "array[float]" = field(default_factory=lambda: array("f"))
    areas: "array[float]" = field(default_factory=lambda: array("f"))
    ious: "array[float]" = field(default_factory=lambda: array("f"))
    agreements: "array[float]" = field(default_factory=lambda: array("f"))

    def add(self, row: Row, iou: float | None) -> None:
        self.decisions[row["decision"]] += 1
        self.scores.append(expected_iou(row))
        self.areas.append(row["area"])
        if iou is not None:
            self.ious.append(iou)
        if row["agreement"] is not None:
            self.agreements.append(row["agreement"])

    def line(self, name: str) -> Row:
        """The group as a line of a table."""
        n = self.decisions.total()
        return {
            "name": name,
            "n": n,
            "decisions": [self.decisions[one] for one in DECISIONS],
            "keep": self.decisions["keep"] / n,
            "score": float(np.median(self.scores)),
            "score_mean": _mean(self.scores),
            "area": float(np.median(self.areas)),
            "iou": _mean(self.ious),
            "agreement": _mean(self.agreements),
        }


class Tally:
    """Everything that the page counts; its size grows with the objects by some bytes each."""

    def __init__(self) -> None:
        self.all = Group()
        self.classes: dict[int, Group] = defaultdict(Group)
        self.sizes: dict[str, Group] = defaultdict(Group)
        self.sources: dict[str, Group] = defaultdict(Group)
        self.reasons: Counter[str] = Counter()
        self.histogram = {decision: [0] * BINS for decision in DECISIONS}
        self._measured = array("f")  # scores of the objects with a true mask, beside `all.ious`

    def add(self, row: Row, iou: float | None) -> None:
        """Count an object.

        Args:
            iou: of its mask with the true one, None where nobody knows that.
        """
        groups = (
            self.all,
            self.classes[row["category_id"]],
            self.sizes[size_name(row["area"])],
            self.sources[" + ".join(row["sources"] or ()) or "none"],
        )
        for group in groups:
            group.add(row, iou)
        self.reasons.update(reasons_of(row))
        self.histogram[row["decision"]][min(int(expected_iou(row) * BINS), BINS - 1)] += 1
        if iou is not None:
            self._measured.append(expected_iou(row))

    def truth(self) -> Row | None:
        """How the scores stand to the true masks; None without any."""
        if not self._measured:
            return None
        scores, ious = (np.array(values, dtype=np.float64) for values in (self._measured, self.all.ious))
        return {
            "n": len(ious),
            "mean_iou": float(ious.mean()),
            "mean_score": float(scores.mean()),
            "over_50": float((ious > 0.5).mean()),
            "over_75": float((ious > 0.75).mean()),
            "spearman": measure.spearman(scores, ious),
            "ece": measure.expected_calibration_error(scores, ious),
            "bins": measure.reliability_bins(scores, ious),
            "histogram": np.histogram(ious, BINS, (0, 1))[0].tolist(),
        }


def _mean(values: Iterable[float]) -> float | None:
    several = np.array(values, dtype=np.float64)
    return float(several.mean()) if several.size else None
