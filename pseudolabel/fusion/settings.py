"""What the options of the fusion mean for the candidates that there are."""

from collections.abc import Mapping

from pseudolabel.candidates import COLORS
from pseudolabel.fusion.decisions import LEAST_SCORE, Limits, limits_for
from pseudolabel.fusion.fuse import TAU_PIXEL
from pseudolabel.fusion.labels import LabelSettings, ScoreOfMask
from pseudolabel.fusion.objects import FusionSettings
from pseudolabel.fusion.options import FuseOptions
from pseudolabel.fusion.quality_aware import FusionRule, Score
from pseudolabel.fusion.refine import Refinement
from pseudolabel.fusion.score_model import ScoreModel, default_score_model

LIMITS = {"expected": (0.8, 0.65), "consensus": (0.85, 0.6)}  # keep and review
OTHER_LIMITS = (0.5, 0.3)  # of the papers'


def label_settings(
    options: FuseOptions,
    *,
    has_boxes: bool = True,
    learned_from: Mapping[str, int] | None = None,
    calibration: ScoreModel | None = None,
) -> LabelSettings:
    """What the options mean; where boxes are given, a score need not say whether there is an object.

    Args:
        learned_from: sources that weigh less because another one has learned from them, and in how many rounds.
        calibration: what decides instead of the score, if any.

    Raises:
        InputError: no score reaches the target precision.
    """
    of_candidates, of_mask = _scores(options, has_boxes=has_boxes)
    class_margin = options.class_margin if options.exclusive == "class" and options.class_margin < 1 else None
    return LabelSettings(
        fusion=FusionSettings(
            rule=FusionRule(options.fusion, of_candidates, options.tau_box, options.tau_pixel or TAU_PIXEL),
            ranking=options.ranking,
            per_source=None if options.per_source == "adaptive" else int(options.per_source),
            min_iou=options.min_iou,
            box_scores=options.box_scores,
            balance=options.balance,
            source_weights=tuple((name, share(name, rounds)) for name, rounds in sorted((learned_from or {}).items())),
            tau_by_sources=options.tau_pixel is None and (options.fusion, options.ranking) == ("qmf", "bqr"),
        ),
        limits=_limits(options, of_mask, calibration),
        refinement=Refinement(options.refine),
        smallest_part=options.smallest_part,
        largest_pinhole=options.largest_pinhole,
        exclusive=options.exclusive,
        upright=options.upright,
        class_margin=class_margin,
        score_of_mask=of_mask,
        unsure_band=options.unsure_band,
    )


def share(source: str, rounds: int) -> float:
    """What a source says in a teacher's masks need not be said again beside them: 1/(n + 1) after n rounds.

    Colours count 1/(n^2 + 1): a teacher of boxes learns from them in every round by its own losses, too.
    """
    n = max(rounds, 1)
    return 1 / (n**2 + 1) if source == COLORS else 1 / (n + 1)


def _scores(options: FuseOptions, *, has_boxes: bool) -> tuple[Score, ScoreOfMask | None]:
    """The score that looks at candidates, and the one that looks at the mask instead, if any."""
    named = options.score
    if named == "auto":
        named = "evidence" if has_boxes else "mqs"
    if named == "evidence" or named == "consensus" or named == "expected":
        return "mqs", named
    return named, None


def _limits(options: FuseOptions, score: ScoreOfMask | None, calibration: ScoreModel | None) -> Limits:
    """The limits that are given; else of expected IoU those that the target asks for, or those of the score's scale."""
    keep, review, least = options.keep_score, options.review_score, options.min_area_px
    model = calibration or (default_score_model() if score == "evidence" else None)
    if model is None:
        usual = LIMITS.get(score or "", OTHER_LIMITS)
        return Limits(usual[0] if keep is None else keep, usual[1] if review is None else review, least)
    low = LEAST_SCORE if review is None else review
    if keep is not None:
        return Limits(keep, low, least)
    target = {"target": options.target_precision, "at_iou": options.at_iou}
    return limits_for(model.chances, review=low, min_area_px=least, **target)
