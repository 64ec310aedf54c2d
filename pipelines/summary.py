"""What a stage did, in one line for people: images, boxes, what was refused and why, and where the files are."""

from collections.abc import Mapping
from typing import Any

from pseudolabel.pipelines.run.conservation import Count, Counts
from pseudolabel.pipelines.work.acceptance import told

_DECISIONS = ("keep", "review", "box_only", "ignore")  # in the order in which they are told
NOTES = {
    "clipped": "boxes cut to their image",
    "doubled": "boxes given twice",
    "passed_over": "images of which pages or channels were passed over",
    "crowd": "crowd regions, which nothing labels",
    "without_candidate": "without a candidate",
    "unmet": "of which no mask meets the box",
    "classless": "masks of no class, which count where another source names one",
    "box_and_colors": "with a mask of box and colours alone",
    "reviewed": "as people answered",
    "masks": "masks",
    "keep": "kept",
    "review": "to review",
    "ignore": "ignored",
    "good": "expected to be good",
}
_FEW, _NEARLY_ALL, _SOME = 0.05, 0.98, 20  # shares of kept masks that deserve a word, from so many masks on


def whole_notes(notes: Mapping[str, int]) -> dict[str, int]:
    """Notes as people are told them: masks expected to be good, which shards count in thousandths, as whole ones."""
    whole = {name: count for name, count in notes.items() if name not in ("good", "good_thousandths")}
    if len(whole) == len(notes):
        return whole
    return whole | {"good": notes.get("good", 0) + round(notes.get("good_thousandths", 0) / 1000)}


def stage_line(summary: Mapping[str, Any]) -> str:
    """One line about a stage that ended.

    Args:
        summary: `StageSummary.as_dict()`.
    """
    counts = Counts.from_dict(summary["counts"])
    such_as = f", e.g. {summary['example']}" if summary["example"] else ""
    what = _fused(counts) + such_as if "masks" in counts.notes else _worked_on(counts, such_as)
    where = f" -> {summary['outputs'][0]}" if summary["outputs"] else ""
    shards = f"{summary['attempted']} of {summary['shards']} shards in {summary['seconds']:.1f} s"
    return f"{summary['stage']}: {what}{where}; {shards} on {summary['device']}"


def _worked_on(counts: Counts, such_as: str) -> str:
    boxes, notes = counts.objects, counts.notes
    parts = [f"{counts.images.n_ok} images{_refused(counts.images)}"]
    if boxes.n_in:
        parts.append(f"{boxes.n_ok} boxes used{_refused(boxes)}")
    told = [f"{count} {NOTES.get(name, name)}" for name, count in notes.items()]
    if boxes.n_ok and notes.get("crowd") == boxes.n_ok:
        told.append("so there is nothing to label")
    return ", ".join(parts) + such_as + "".join(f", {one}" for one in told)


def _fused(counts: Counts) -> str:
    """`146 objects: 120 keep, 20 review, 4 box_only, 2 ignored, 3 without a candidate`."""
    notes, objects = whole_notes(counts.notes), counts.objects
    made = objects.n_ok or notes["masks"]
    decided = [_told(name, notes) for name in _DECISIONS if notes.get(name)]
    boxes = f"{NOTES['without_candidate']}, so that the box is the mask"
    without = [f"{notes['without_candidate']} {boxes}"] if notes.get("without_candidate") else []
    without += [f"{notes['reviewed']} {NOTES['reviewed']}"] if notes.get("reviewed") else []
    verb = "objects" if objects.n_in else "objects made"
    refused = _refused(objects if objects.n_in else counts.images)
    hint = one_sided(notes["masks"] - notes.get("ignore", 0), notes.get("keep", 0)) if decided else ""
    told = f": {', '.join([*decided, *without])}{hint and f'; {hint}'}" if decided else ""
    return f"{made} {verb}{refused}{told}"


def _told(decision: str, notes: Mapping[str, int]) -> str:
    """`120 keep (104 of them expected to be good)`."""
    good = f" ({notes['good']} of them expected to be good)" if decision == "keep" and "good" in notes else ""
    return f"{notes[decision]} {'ignored' if decision == 'ignore' else decision}{good}"


def one_sided(masks: int, kept: int) -> str:
    """What to do where decisions hardly divide the masks; empty where they do."""
    if masks < _SOME or _FEW * masks <= kept <= _NEARLY_ALL * masks:
        return ""
    if kept < _FEW * masks:
        return "hardly a mask is kept: add a source, or ask for less by --target-precision or --at-iou"
    return "nearly all masks are kept: ask for more by --target-precision or --at-iou"


def _refused(count: Count) -> str:
    return f", {count.n_rejected} refused ({told(count)})" if count.n_rejected else ""
