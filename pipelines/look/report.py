"""`report`: what came out of a run, as one HTML file that needs no network."""

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from pseudolabel import __version__
from pseudolabel.errors import InputError
from pseudolabel.files import write_text_atomically
from pseudolabel.pipelines.options.look import ReportConfig
from pseudolabel.pipelines.run.paths import RunPaths
from pseudolabel.pipelines.summary import one_sided

if TYPE_CHECKING:
    from pseudolabel.pipelines.look.bought import Bought
    from pseudolabel.pipelines.look.choice import Choice
    from pseudolabel.pipelines.look.gallery import Gallery, Truth
    from pseudolabel.pipelines.look.rows import FusedRun
    from pseudolabel.pipelines.look.tally import Tally

_MUCH = 0.1  # between the mean score and the mean IoU
_CLASSES_LISTED = 300
_USES = {
    "keep": "the mask",
    "review": "the mask, weighted by its score",
    "box_only": "the box alone",
    "ignore": "nothing",
}


def write_report(run: RunPaths, config: ReportConfig) -> dict[str, Any]:
    """Write the page; `report`, its path, `objects` in all, those `shown` in the gallery, and `unreadable` images.

    In `unfinished` stands what is to be said of shards without pseudo labels, if there are any.

    Raises:
        InputError: the run has no pseudo labels yet, or the ground truth cannot be read.
    """
    from pseudolabel.pipelines.look.bought import Bought
    from pseudolabel.pipelines.look.gallery import make_gallery
    from pseudolabel.pipelines.look.rows import FusedRun, true_masks
    from pseudolabel.pipelines.review.reviewed import answers_of
    from pseudolabel.report.page import render_page
    from pseudolabel.reviews import settled

    fused = FusedRun(run)
    truth = true_masks(config.ground_truth, fused)
    bought = Bought(settled(answers_of(run)))
    tally, choice = _counted(fused, truth, config.gallery, bought)
    gallery = make_gallery(fused, choice.objects(), truth)
    facts = _facts(fused, tally, gallery) | {"bought": bought.facts()}
    path = config.out or run.root / "report.html"
    write_text_atomically(path, render_page("report", facts, {"objects": gallery.objects, "run": run.typed}))
    return {
        "report": path, "objects": facts["objects"], "shown": facts["shown"], "unreadable": gallery.unreadable,
        "unfinished": fused.unfinished(),
    }  # fmt: skip


def format_written(written: Mapping[str, Any]) -> str:
    """What was written, in a line for people."""
    line = f"{written['report']}: {written['objects']} objects, {written['shown']} of them with pictures"
    gone = written["unreadable"]
    line += f"; images that could not be opened now: {len(gone)}, such as {gone[0]}" if gone else ""
    return "\n".join(filter(None, [line, written["unfinished"]]))


def _counted(fused: "FusedRun", truth: "Truth", gallery: int, bought: "Bought") -> "tuple[Tally, Choice]":
    """One way through all objects: counts, what reviews bought of them, and the ones that are shown."""
    from pseudolabel.metrics.mask_iou import rle_iou
    from pseudolabel.pipelines.look.choice import Choice
    from pseudolabel.pipelines.look.tally import Tally

    tally, choice = Tally(), Choice(gallery)
    for shard, row in fused.all_objects():
        height, width = row["segmentation"]["size"]
        true_mask = truth(row, (height, width))
        iou = None if true_mask is None else rle_iou(row["segmentation"], true_mask)
        tally.add(row, iou)
        bought.add(row, true_mask)
        choice.add(shard, row, iou)
    if not tally.all.scores:
        raise InputError(
            f"{fused.paths.root}: fuse labelled not one object; see  pseudolabel status {fused.paths.typed}"
        )
    return tally, choice


def _facts(fused: "FusedRun", tally: "Tally", gallery: "Gallery") -> dict[str, Any]:
    from pseudolabel.errors import hide_credentials
    from pseudolabel.pipelines.look import facts
    from pseudolabel.pipelines.look.tally import DECISIONS, SIZES

    run, plan = fused.paths, fused.plan
    tables, sources, decisions = facts.stages(run), facts.candidate_sources(fused), tally.all.decisions
    n = decisions.total()
    classes = sorted(tally.classes, key=lambda number: -len(tally.classes[number].scores))
    return {
        "run": str(run.root),
        "version": __version__,
        "made": datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
        "images_root": hide_credentials(plan.images_root),
        "source": plan.source,
        "funnel": facts.funnel(tables, decisions),
        "decision_names": DECISIONS,
        "decisions": [
            {"name": one, "n": decisions[one], "share": decisions[one] / n, "use": _USES[one]} for one in DECISIONS
        ],
        "reasons": tally.reasons.most_common(20),
        "warnings": [*filter(None, [fused.unfinished()]), *_warnings(tally)],
        "mean_score": tally.all.line("all")["score_mean"],
        "truth": tally.truth(),
        "histogram": tally.histogram,
        "classes": [tally.classes[number].line(fused.names[number]) for number in classes[:_CLASSES_LISTED]],
        "classes_left_out": max(0, len(classes) - _CLASSES_LISTED),
        "sizes": [tally.sizes[name].line(name) for name in SIZES if name in tally.sizes],
        "sources": sources,
        "combinations": [group.line(name) for name, group in sorted(tally.sources.items())],
        **_agreement(gallery),
        "reviews": facts.reviews(run),
        "objects": n,
        "refused": facts.refused(run, tables),
        "speed": facts.throughput(run, plan, tables),
        "versions": facts.versions(fused),
        "commands": facts.repeat_commands(run, plan),
        "zip": zip,
        "dict": dict,
    }


def _warnings(tally: "Tally") -> Iterator[str]:
    decisions = tally.all.decisions
    hint = one_sided(decisions.total() - decisions["ignore"], decisions["keep"])
    if hint:
        yield f"{hint} of fuse"
    truth = tally.truth()
    if truth and abs(truth["mean_score"] - truth["mean_iou"]) > _MUCH:
        yield (
            f"the scores promise a mean IoU of {truth['mean_score']:.2f}, the masks have {truth['mean_iou']:.2f}: "
            "pseudolabel calibrate learns the difference."
        )


def _agreement(gallery: "Gallery") -> Mapping[str, Any]:
    """The gallery in numbers, and how the layers of evenly drawn objects overlap, as a square table."""
    even = sum(one["even"] for one in gallery.objects)
    layers = list(dict.fromkeys(name for pair in gallery.overlaps for name in pair))
    both = gallery.overlaps | {(second, first): values for (first, second), values in gallery.overlaps.items()}
    rows = [{"name": first, "cells": [_cell(first, second, both) for second in layers]} for first in layers]
    return {
        "shown": len(gallery.objects),
        "left_out": gallery.left_out,
        "unreadable": gallery.unreadable[:20],
        "even": even,
        "layers": layers,
        "overlaps": rows,
    }


def _cell(first: str, second: str, overlaps: Mapping[tuple[str, str], list[float]]) -> str:
    values = overlaps.get((first, second))
    return f"{sum(values) / len(values):.3f}" if values else "-" if first != second else ""
