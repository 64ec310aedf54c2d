"""What the options of the fusion mean for the candidates that there are."""

from collections.abc import Mapping, Sequence

from pseudolabel.fusion.decisions import Limits
from pseudolabel.fusion.labels import LabelSettings, ScoreOfMask
from pseudolabel.fusion.objects import FusionSettings
from pseudolabel.fusion.options import FuseOptions
from pseudolabel.fusion.quality_aware import FusionRule, Score, threshold_of
from pseudolabel.fusion.refine import Refinement

LIMITS = {"expected": (0.8, 0.65), "consensus": (0.85, 0.6)}  # keep and review
OTHER_LIMITS = (0.5, 0.3)  # of calibrated scores and the papers'


def label_settings(
    options: FuseOptions,
    *,
    has_boxes: bool = True,
    learned_from: Mapping[str, int] | None = None,
    weights: Sequence[float] = (1.0,),
) -> LabelSettings:
    """What the options mean; where boxes are given, a score need not say whether there is an object.

    Args:
        learned_from: sources that weigh less because another one has learned from them, and in how many rounds.
        weights: of the tables beside each other.
    """
    of_candidates, of_mask = _scores(options, has_boxes=has_boxes, num_tables=len(weights))
    class_margin = options.class_margin if options.exclusive == "class" and options.class_margin < 1 else None
    return LabelSettings(
        fusion=FusionSettings(
            rule=FusionRule(options.fusion, of_candidates, options.tau_box, _tau_pixel(options, weights)),
            ranking=options.ranking,
            per_source=None if options.per_source == "adaptive" else int(options.per_source),
            min_iou=options.min_iou,
            box_scores=options.box_scores,
            balance=options.balance,
            source_weights=tuple((name, share(rounds)) for name, rounds in sorted((learned_from or {}).items())),
            witnesses=of_mask == "consensus",
            class_evidence=class_margin is not None,
        ),
        limits=_limits(options, None if options.calibration else of_mask),
        refinement=Refinement(options.refine),
        smallest_part=options.smallest_part,
        largest_pinhole=options.largest_pinhole,
        exclusive=options.exclusive,
        upright=options.upright,
        class_margin=class_margin,
        score_of_mask=of_mask,
        unsure_band=options.unsure_band,
    )


def share(rounds: int) -> float:
    """What a source says in a teacher's masks need not be said again beside them: 1/n after n rounds."""
    return 1 / max(rounds, 1)


def _scores(options: FuseOptions, *, has_boxes: bool, num_tables: int) -> tuple[Score, ScoreOfMask | None]:
    """The score that looks at candidates, and the one that looks at the mask instead, if any."""
    named = options.score
    if named == "auto" and has_boxes:
        named = "consensus" if num_tables > 1 else "expected"
    if named == "consensus" or named == "expected":
        return "mqs", named
    return ("mqs" if named == "auto" else named), None


def _tau_pixel(options: FuseOptions, weights: Sequence[float]) -> float:
    """What is given, or what the weighted mean of sources needs; one mask alone and a vote are read at one half."""
    if options.tau_pixel is not None:
        return options.tau_pixel
    return threshold_of(weights) if (options.fusion, options.ranking) == ("qmf", "bqr") else 0.5


def _limits(options: FuseOptions, score: ScoreOfMask | None) -> Limits:
    """The limits that are given, or those of the score's scale: our own are high for nearly all masks, so that the
    limits of the others would never speak. `calibrate` gives limits that mean a precision.
    """
    keep, review = LIMITS[score] if score else OTHER_LIMITS
    given = options.keep_score, options.review_score
    return Limits(keep if given[0] is None else given[0], review if given[1] is None else given[1], options.min_area_px)
