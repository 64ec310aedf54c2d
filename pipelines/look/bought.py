"""What the minutes of a review bought: the labels of the objects that people answered about, before and after."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from pseudolabel.metrics.mask_iou import rle_iou
from pseudolabel.pipelines.look.tally import REVIEWED
from pseudolabel.records import expected_iou
from pseudolabel.reviews import Answer
from pseudolabel.rle import Rle

Row = dict[str, Any]
KINDS = {
    "fused": "accepted as it was",
    "drawn": "drawn by hand",
    "imported": "corrected elsewhere",
    "box_only": "the box alone",
    "wrong_class": "of no class of the run",
    "reject": "no object",
}


class Bought:
    """Counts over the labels of a run that `fuse` took from answers; of each answer, what was shown is known.

    Args:
        answers: those that count, by annotation.
    """

    def __init__(self, answers: Mapping[int, Answer]) -> None:
        self._answers = answers
        self._before: list[tuple[str, float, float | None]] = []  # of answered objects: decision, score, true IoU
        self._after: list[tuple[str, float, float | None]] = []
        self._others: list[tuple[str, float, float | None]] = []
        self._kinds: dict[str, list[Row]] = defaultdict(list)

    def add(self, row: Row, truth: Rle | None) -> None:
        """Count a label.

        Args:
            truth: the object's true mask, None where nobody knows it.
        """
        after = (row["decision"], expected_iou(row), None if truth is None else rle_iou(row["segmentation"], truth))
        answer = self._answers.get(row["annotation_id"])
        if row["decision_reason"] != REVIEWED or answer is None or answer.shown is None:
            self._others.append(after)
            return
        shown = answer.shown
        before = (shown.decision, shown.score, None if truth is None else rle_iou(shown.mask, truth))
        self._before.append(before)
        self._after.append(after)
        kind = answer.origin if answer.verdict == "accept" else answer.verdict
        same = rle_iou(shown.mask, row["segmentation"])
        self._kinds[kind].append({"before": before, "after": after, "same": same, "seconds": answer.seconds})

    def facts(self) -> Row | None:
        """For the page; None where no answer is in the labels whose object's label before is known."""
        if not self._before:
            return None
        kinds = sorted(self._kinds.items(), key=lambda item: -len(item[1]))
        return {
            "n": len(self._before),
            "figures": list(_figures(self._before, self._after, self._others)),
            "kinds": [_kind(name, rows) for name, rows in kinds],
            "truth": any(iou is not None for _, _, iou in self._after),
        }


def _figures(before: list[Any], after: list[Any], others: list[Any]) -> Iterable[Row]:
    """Each figure of all the run's objects, before and after, and how many objects it is of."""
    for name, figure, form in (
        ("kept masks", _kept, "{:,.0f}"),
        ("mean expected IoU of what is used", _mean_score, "{:.3f}"),
        ("mean IoU with the true masks, of what is used", _mean_iou, "{:.3f}"),
    ):
        was, now = figure([*before, *others]), figure([*after, *others])
        if was is not None and now is not None:
            sign = "+" if now >= was else "-"
            change = f"{sign}{form.format(abs(now - was))}"
            yield {"name": name, "before": form.format(was), "after": form.format(now), "change": change}


def _kept(labels: list[Any]) -> float | None:
    return float(sum(decision == "keep" for decision, _, _ in labels))


def _mean_score(labels: list[Any]) -> float | None:
    return _mean(score for decision, score, _ in labels if decision in ("keep", "review"))


def _mean_iou(labels: list[Any]) -> float | None:
    return _mean(iou for decision, _, iou in labels if decision in ("keep", "review") and iou is not None)


def _kind(name: str, rows: list[Row]) -> Row:
    """The answers of one kind as a line of a table."""
    before, after = [row["before"] for row in rows], [row["after"] for row in rows]
    return {
        "name": KINDS.get(name, f"mask of {name}"),
        "n": len(rows),
        "minutes": sum(row["seconds"] for row in rows) / 60,
        "kept_before": int(_kept(before) or 0),
        "kept_after": int(_kept(after) or 0),
        "changed": sum(row["same"] < 1 for row in rows),
        "same": _mean(row["same"] for row in rows),
        "iou_before": _mean(iou for _, _, iou in before if iou is not None),
        "iou_after": _mean(iou for _, _, iou in after if iou is not None),
    }


def _mean(values: Iterable[float]) -> float | None:
    several = np.array(list(values), dtype=np.float64)
    return float(several.mean()) if several.size else None
