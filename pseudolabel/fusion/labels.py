"""The pseudo labels of one image, as rows of `records.PSEUDO`."""

import hashlib
import json
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float32, UInt8

from pseudolabel.candidates import Candidate, GivenBox
from pseudolabel.fusion.decisions import (
    COVERED,
    CROWD,
    EMPTY_MASK,
    NO_CANDIDATE,
    Limits,
    Verdict,
    default_limits,
    judge,
    reasons,
)
from pseudolabel.fusion.evidence import Evidence, color_evidence, covered_shares, shape_evidence
from pseudolabel.fusion.exclusive import Claim, Share, shared_out, yielded
from pseudolabel.fusion.grid import object_window
from pseudolabel.fusion.objects import FusedObject, FusionSettings, fuse_image
from pseudolabel.fusion.parts import without_islands, without_pinholes
from pseudolabel.fusion.refine import Refinement, refine
from pseudolabel.fusion.score_model import ScoreModel, default_score_model
from pseudolabel.fusion.scoring import Opinion, consensus_score, opinion, outline_iou
from pseudolabel.fusion.surroundings import Surroundings
from pseudolabel.masks import Grid, PixelMask
from pseudolabel.rle import Rle, area, bbox_xywh, encode_crop

Row = dict[str, Any]
Exclusive = Literal["none", "class", "all"]
ScoreOfMask = Literal["evidence", "consensus", "expected"]


@dataclass(frozen=True, slots=True)
class LabelSettings:
    """Everything that decides how a label comes out; the defaults are those of one source and given boxes."""

    fusion: FusionSettings = field(default_factory=FusionSettings)
    limits: Limits = field(default_factory=lambda: default_limits())
    refinement: Refinement = field(default_factory=Refinement)
    smallest_part: float = 0.02
    largest_pinhole: float = 0.005
    exclusive: Exclusive = "class"  # among which objects a pixel has one owner at most
    upright: bool = True  # images show the ground below
    class_margin: float | None = 0.3  # of probability, by which one class has to yield a pixel to another; None: never
    score_of_mask: ScoreOfMask | None = "evidence"  # None: the rule's, which looks at candidates alone
    unsure_band: float = 0.35  # pixels are unsure whose probability of being what the mask says is below 1/2 plus this


@dataclass(frozen=True, slots=True)
class Label:
    """One object with its mask at pixels, on the way to its row."""

    target: GivenBox
    window: Grid
    pixels: Bool[np.ndarray, "h w"]
    fused: FusedObject | None
    verdict: Verdict | None  # None: to be judged by its score
    score: float
    expected_iou: float = 0.0
    surroundings: Surroundings | None = None  # the picture, for refinement and evidence


def label_objects(
    targets: Sequence[GivenBox],
    candidates: Sequence[Candidate],
    size_hw: tuple[int, int],
    settings: LabelSettings,
    calibration: ScoreModel | None = None,
    rgb: UInt8[np.ndarray, "H W 3"] | None = None,
) -> list[Row]:
    """One row per object, in the order of `targets`; without image key and status.

    Args:
        rgb: the photograph, which refinement and evidence look at.
    """
    return judged(settled_labels(targets, candidates, size_hw, settings, rgb), size_hw, settings, calibration)


def judged(
    labels: Sequence[Label], size_hw: tuple[int, int], settings: LabelSettings, calibration: ScoreModel | None = None
) -> list[Row]:
    """The rows of an image's settled labels, in their order, with score, evidence and decision."""
    covered = covered_shares([label.target for label in labels])
    return [_judged(*one, size_hw, settings, calibration) for one in zip(labels, covered, strict=True)]


def settled_labels(
    targets: Sequence[GivenBox],
    candidates: Sequence[Candidate],
    size_hw: tuple[int, int],
    settings: LabelSettings,
    rgb: UInt8[np.ndarray, "H W 3"] | None = None,
) -> list[Label]:
    """The masks of all objects, refined and with their disputes settled, in the order of `targets`."""
    fused = fuse_image(targets, candidates, size_hw, settings.fusion)
    labels = [_label(target, one, size_hw, settings, rgb) for target, one in zip(targets, fused, strict=True)]
    if settings.exclusive != "none":
        labels = _settled(labels, settings)
    return labels if settings.class_margin is None else _yielded(labels, settings, settings.class_margin)


def crowd_row(target: GivenBox, segmentation: Rle | None, size_hw: tuple[int, int]) -> Row:
    """A crowd passes through as a region to ignore: as the user drew it, or its box."""
    window = object_window(target.box_xyxy, size_hw)
    mask = segmentation or _encode(window, np.ones((window.height, window.width), dtype=bool), size_hw)
    return _row(target, mask, iscrowd=True, score=0.0) | _verdict_columns(CROWD)


def provenance_id(settings: LabelSettings, sources: Sequence[str], calibration: ScoreModel | None) -> str:
    """One name for all masks that the same rules made from the same sources; `provenance.json` spells it out."""
    shipped = default_score_model() if settings.score_of_mask == "evidence" else None
    models = [model.digest if model else None for model in (shipped, calibration)]
    rules = [repr(settings), sorted(sources), *models]
    return hashlib.sha256(json.dumps(rules).encode()).hexdigest()[:16]


def _label(
    target: GivenBox,
    fused: FusedObject | None,
    size_hw: tuple[int, int],
    settings: LabelSettings,
    rgb: UInt8[np.ndarray, "H W 3"] | None,
) -> Label:
    if fused is None:
        return _rectangle(target, object_window(target.box_xyxy, size_hw), None, NO_CANDIDATE, 0.0)
    seen = None if rgb is None else Surroundings.of(fused.window, rgb)
    soft = refine(fused.probability, fused.window, settings.refinement, seen, tau_pixel=fused.tau_pixel)
    fused = replace(fused, probability=soft)
    pixels = _pixels(fused.probability, settings)
    if not pixels.any():
        return _rectangle(target, fused.window, fused, EMPTY_MASK, 0.0)
    own = opinion(fused.probability, pixels)
    score = _score(fused, pixels, own, settings)
    return Label(target, fused.window, pixels, fused, None, score, own.expected_iou, seen)


def _score(fused: FusedObject, pixels: Bool[np.ndarray, "h w"], own: Opinion, settings: LabelSettings) -> float:
    """The rule's score, which looks at the candidates alone, or one that looks at the refined mask, too.

    That of the evidence follows when the masks are settled. `expected` is the geometric mean of two opinions: the
    candidates' mean probability inside their mean, and the IoU that the refined probabilities let expect of the mask.

    Args:
        own: what the refined probabilities say about the mask.
    """
    if settings.score_of_mask is None or settings.score_of_mask == "evidence":
        return fused.score
    if settings.score_of_mask == "expected":
        return math.sqrt(fused.pixel_quality * own.expected_iou)
    return _consensus(fused, pixels, own)


def _consensus(fused: FusedObject, pixels: Bool[np.ndarray, "h w"], own: Opinion) -> float:
    """How sure the sources are of a mask, whose refined probabilities say `own`."""
    by_source = fused.witnesses.asked(pixels, fused.window)
    return consensus_score(own, by_source, fused.witnesses.spread, outline=outline_iou(pixels))


def _settled(labels: list[Label], settings: LabelSettings) -> list[Label]:
    """The labels with overlaps resolved among real masks; boxes that stand in for one claim no pixel."""
    rivals: dict[int | None, list[int]] = defaultdict(list)
    for i, label in enumerate(labels):
        if label.fused is not None and label.verdict is None:
            rivals[label.target.category_id if settings.exclusive == "class" else None].append(i)
    settled = list(labels)
    for group in rivals.values():
        claims = [_claim(labels[i]) for i in group]
        for i, share in zip(group, shared_out(claims, upright=settings.upright), strict=True):
            if share is not None:
                settled[i] = _with_share(labels[i], share, settings)
    return settled


def _yielded(labels: list[Label], settings: LabelSettings, margin: float) -> list[Label]:
    """The labels without what they have to yield to an object of another class, where the sources know both classes."""
    claims: dict[int, Claim] = {}
    for i, label in enumerate(labels):
        if label.verdict is None and label.fused is not None and label.fused.knows_class:
            evidence = label.fused.witnesses.on_average(label.window)
            claims[i] = Claim(label.window, label.pixels, evidence)
    settled, classes = list(labels), [labels[i].target.category_id for i in claims]
    for i, share in zip(claims, yielded(list(claims.values()), classes, margin=margin), strict=True):
        fused = labels[i].fused
        if share is not None and fused is not None:
            share = replace(share, probability=fused.probability * share.probability)
            settled[i] = _with_share(labels[i], share, settings)
    return settled


def _claim(label: Label) -> Claim:
    assert label.fused is not None, "a box that stands in for a mask claims nothing"
    return Claim(label.window, label.pixels, label.fused.probability)


def _with_share(label: Label, share: Share, settings: LabelSettings) -> Label:
    assert label.fused is not None
    if not share.pixels.any():
        return replace(label, verdict=COVERED)
    pixels = without_islands(share.pixels, smallest_share=settings.smallest_part)
    fused = replace(label.fused, probability=share.probability)
    own = opinion(share.probability, pixels)
    score = _score(fused, pixels, own, settings)
    return replace(label, pixels=pixels, fused=fused, expected_iou=own.expected_iou, score=score)


def _pixels(probability: Float32[np.ndarray, "h w"], settings: LabelSettings) -> Bool[np.ndarray, "h w"]:
    mask = without_islands(probability > 0.5, smallest_share=settings.smallest_part)
    return without_pinholes(mask, largest_share=settings.largest_pinhole)


def _rectangle(target: GivenBox, window: Grid, fused: FusedObject | None, verdict: Verdict, score: float) -> Label:
    return Label(target, window, np.ones((window.height, window.width), dtype=bool), fused, verdict, score)


def _judged(
    label: Label, covered: float, size_hw: tuple[int, int], settings: LabelSettings, calibration: ScoreModel | None
) -> Row:
    row = _described(label, size_hw, settings, calibration)
    verdict = label.verdict
    if verdict is None:
        evidence = _evidence(label, covered)
        row |= {"evidence": evidence.columns(), "reasons": reasons(evidence, row["agreement"])}
        if settings.score_of_mask == "evidence":
            row["score"] = default_score_model().expected_iou([row])[0]
        if calibration is not None:
            row["calibrated_iou"] = calibration.expected_iou([row])[0]
        score = row["score"] if row["calibrated_iou"] is None else row["calibrated_iou"]
        verdict = judge(score, row["area"], settings.limits)
        row["unsure"] = _unsure(label, size_hw, settings.unsure_band)
    return row | _verdict_columns(verdict)


def _evidence(label: Label, covered: float) -> Evidence:
    assert label.fused is not None, "a box that stands in for a mask has no evidence"
    own = opinion(label.fused.probability, label.pixels)
    signs: dict[str, float | None] = {
        "consensus": _consensus(label.fused, label.pixels, own) if label.fused.witnesses.tell_doubt else None,
        "prompted": float(label.fused.prompted),
        "covered": covered,
        **shape_evidence(label.pixels),
    }
    if label.surroundings is not None:
        signs |= color_evidence(label.pixels, label.window, label.surroundings)
    return Evidence(**signs)


def _unsure(label: Label, size_hw: tuple[int, int], band: float) -> Rle | None:
    if label.fused is None or band == 0:
        return None
    return _encode(label.window, unsure_pixels(label.fused.probability, label.pixels, band), size_hw)


def unsure_pixels(
    probability: Float32[np.ndarray, "h w"], mask: Bool[np.ndarray, "h w"], band: float
) -> Bool[np.ndarray, "h w"]:
    """Where the probability of what the mask says, object or not, is below one half plus the band.

    Besides the surroundings of the contour these are the crumbs and holes against which the mask was decided.
    """
    unsure: Bool[np.ndarray, "h w"] = np.where(mask, probability, 1 - probability) < 0.5 + band
    return unsure


def _described(label: Label, size_hw: tuple[int, int], settings: LabelSettings, calibration: ScoreModel | None) -> Row:
    row = _row(label.target, _encode(label.window, label.pixels, size_hw), iscrowd=False, score=label.score)
    sources = label.fused.sources if label.fused else ()
    row["provenance_id"] = provenance_id(settings, sources, calibration)
    if label.fused:
        row |= {
            "box_quality": label.fused.box_quality,
            "pixel_quality": label.fused.pixel_quality,
            "expected_iou": label.expected_iou,
            "candidates_used": label.fused.candidates_used,
            "sources": list(sources),
            "agreement": label.fused.agreement,
        }
    return row


def _row(target: GivenBox, mask: Rle, *, iscrowd: bool, score: float) -> Row:
    return {
        "annotation_id": target.annotation_id,
        "category_id": target.category_id,
        "source_bbox_xywh": list(target.bbox_xywh),
        "iscrowd": iscrowd,
        "score": score,
        "box_quality": 0.0,
        "pixel_quality": 0.0,
        "expected_iou": 0.0,
        "calibrated_iou": None,
        "candidates_used": 0,
        "sources": [],
        "agreement": None,
        "evidence": None,
        "reasons": [],
        "provenance_id": None,
    } | _mask_columns(mask)


def _mask_columns(mask: Rle) -> Row:
    return {"segmentation": mask, "area": area(mask), "bbox_xywh": [float(v) for v in bbox_xywh(mask)]}


def _verdict_columns(verdict: Verdict) -> Row:
    return {"decision": verdict.decision, "decision_reason": verdict.reason}


def _encode(window: Grid, pixels: Bool[np.ndarray, "h w"], size_hw: tuple[int, int]) -> Rle:
    return encode_crop(PixelMask(int(window.x0), int(window.y0), pixels), size_hw)
