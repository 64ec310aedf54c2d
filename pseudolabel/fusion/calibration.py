"""From a small audited set: how the score has to move for the masks of one's own data.

The score that ships with the package knows what to expect of masks in general. An audited set moves its weights towards
itself by as much as it can bear: how far is chosen by what predicts masks on images that were not learned from, and
without a gain there the score stays as it is. Masks that were not drawn evenly, such as the doubtful ones that people
review, move its level and spread alone: what they say of the order does not hold for the others.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64

from pseudolabel.errors import InputError
from pseudolabel.fusion.score_model import ScoreModel, default_score_model, fit_weights

MIN_OBJECTS = 30
_FOLDS = 5
_FREE = 1e-3  # pull on a weight that may go where it likes
_HELD = 1e9  # on one that has to stay
# From no change over the level alone to all weights nearly free, in objects' worth of trust in the score as it is.
_PULLS = ((_HELD, _HELD), (3.0, _HELD), (3.0, 300.0), (3.0, 100.0), (3.0, 30.0), (3.0, 10.0), (_FREE, 3.0))
_PULLS_IN_ORDER = ((_HELD, _HELD), (3.0, _HELD), (3.0, 3.0))  # nothing, the level, level and spread


def fit_calibration(
    rows: Sequence[Mapping[str, Any]],
    iou: Float64[np.ndarray, " n"],
    *,
    prior: ScoreModel | None = None,
    provenance: Mapping[str, Any] | None = None,
    keep_order: bool = False,
) -> ScoreModel:
    """The score model moved towards rows of `records.PSEUDO` and their masks' true IoU.

    Folds are made of whole images, because objects of one photograph are alike.

    Args:
        prior: where it starts; the model that ships with the package if not given.
        keep_order: move level and spread alone, so that no mask overtakes another.

    Raises:
        InputError: fewer than 30 objects, or all from fewer images than there are folds.
    """
    _refuse_small(rows)
    return _fitted(rows, iou, prior or default_score_model(), provenance or {}, keep_order)


def held_out_scores(
    rows: Sequence[Mapping[str, Any]], iou: Float64[np.ndarray, " n"], *, keep_order: bool = False
) -> Float64[np.ndarray, " n"]:
    """Every object's calibrated score by a calibration that was learned without its image.

    Raises:
        InputError: as of `fit_calibration`, of all rows; what remains without a fold may be fewer.
    """
    _refuse_small(rows)
    fold = image_folds([row["image_key"] for row in rows])
    out = np.empty(len(rows))
    for k in range(_FOLDS):
        others = [row for row, f in zip(rows, fold, strict=True) if f != k]
        learned = _fitted(others, iou[fold != k], default_score_model(), {}, keep_order)
        out[fold == k] = learned.expected_iou([row for row, f in zip(rows, fold, strict=True) if f == k])
    return out


def _refuse_small(rows: Sequence[Mapping[str, Any]]) -> None:
    images = {row["image_key"] for row in rows}
    if len(rows) < MIN_OBJECTS or len(images) < _FOLDS:
        raise InputError(
            f"{len(rows)} objects in {len(images)} images are too few to calibrate on; "
            f"audit at least {MIN_OBJECTS} objects in {_FOLDS} images"
        )


def _fitted(
    rows: Sequence[Mapping[str, Any]],
    iou: Float64[np.ndarray, " n"],
    prior: ScoreModel,
    provenance: Mapping[str, Any],
    keep_order: bool,
) -> ScoreModel:
    images = [row["image_key"] for row in rows]
    features, own = prior.standard(rows), np.array(prior.weights)
    towards = np.array([prior.intercept, *own])
    if keep_order:
        features, towards = (features @ own)[:, None], np.array([prior.intercept, 1.0])
    moves = {pull: _moved(features, iou, towards, pull) for pull in (_PULLS_IN_ORDER if keep_order else _PULLS)}
    kept = [pull for pull, move in moves.items() if not keep_order or move[1] > 0]
    pull = min(kept, key=lambda pull: _unseen_loss(features, iou, image_folds(images), towards, pull))
    weights = moves[pull][1:] * own if keep_order else moves[pull][1:]
    told = dict(provenance) | {"pull": list(pull), "objects": len(rows), "prior": prior.digest}
    return replace(prior, weights=weights.tolist(), intercept=float(moves[pull][0]), provenance=told)


def image_folds(images: Sequence[str]) -> Int64[np.ndarray, " n"]:
    """One of five folds for every object, the same for all objects of an image."""
    place = {image: i for i, image in enumerate(sorted(set(images)))}
    return np.array([place[image] % _FOLDS for image in images], dtype=np.int64)


@dataclass(frozen=True)
class Threshold:
    """From which calibrated score on the kept masks are as good as wanted, on the audited set."""

    calibrated_iou: float
    precision: float
    kept: int
    of: int


def threshold_for(
    calibrated: Float64[np.ndarray, " n"], iou: Float64[np.ndarray, " n"], *, target_precision: float, at_iou: float
) -> Threshold | None:
    """The lowest calibrated score above which the share of masks with `at_iou` reaches the target, None if none does.

    A score is a threshold only if every mask of that very score is taken too.
    """
    order = np.argsort(-calibrated, kind="stable")
    good = np.cumsum(iou[order] >= at_iou)
    count = np.arange(1, len(order) + 1)
    last_of_its_score = np.append(calibrated[order][:-1] != calibrated[order][1:], True)
    reached = np.flatnonzero(last_of_its_score & (good / count >= target_precision))
    if not reached.size:
        return None
    last = reached[-1]
    return Threshold(float(calibrated[order][last]), float(good[last] / count[last]), int(count[last]), len(order))


def _moved(
    features: Float64[np.ndarray, "n f"],
    iou: Float64[np.ndarray, " n"],
    towards: Float64[np.ndarray, " f+1"],
    pull: tuple[float, float],
) -> Float64[np.ndarray, " f+1"]:
    strength = np.full(len(towards), pull[1])
    strength[0] = pull[0]
    return fit_weights(features, iou, towards=towards, strength=strength)


def _unseen_loss(
    features: Float64[np.ndarray, "n f"],
    iou: Float64[np.ndarray, " n"],
    fold: Int64[np.ndarray, " n"],
    towards: Float64[np.ndarray, " f+1"],
    pull: tuple[float, float],
) -> float:
    """Cross-entropy of IoU and prediction, each by a model that has not seen the image."""
    loss = 0.0
    for k in range(_FOLDS):
        weights = _moved(features[fold != k], iou[fold != k], towards, pull)
        logit = features[fold == k] @ weights[1:] + weights[0]
        loss += float((np.logaddexp(0, logit) - iou[fold == k] * logit).sum())
    return loss
