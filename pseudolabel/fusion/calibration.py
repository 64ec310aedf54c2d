"""From scores to expected IoU: learned on a small audited set, saved with its provenance, applied by `fuse`.

A fractional logistic regression on what the row tells (its score, agreement, size, class frequency) orders the masks;
isotonic regression on predictions that were made for images not learned from puts the order on the scale of IoU.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64

from pseudolabel.errors import InputError
from pseudolabel.fusion.features import FEATURES, feature_matrix

VERSION = 2
MIN_OBJECTS = 30
_FOLDS = 5
_KNOTS = 41
_STRENGTH = 0.1  # of the regression's regularisation, inverse
_INTERVAL = (5.0, 95.0)  # percent


@dataclass(frozen=True)
class Calibration:
    """Expected mask IoU as a function of a pseudo label's row."""

    mean: list[float]
    scale: list[float]
    weights: list[float]
    intercept: float
    knots: list[float]  # of the regression's output
    expected: list[float]  # IoU at the knots
    lower: list[float]  # bootstrap interval over images, 5 and 95 percent
    upper: list[float]
    class_counts: dict[int, int]
    provenance: dict[str, Any] = field(default_factory=dict)
    features: list[str] = field(default_factory=lambda: list(FEATURES))
    version: int = VERSION

    def expected_iou(self, rows: Sequence[Mapping[str, Any]]) -> list[float]:
        """Expected IoU of every row's mask with the true one."""
        return [float(v) for v in np.interp(self._order(rows), self.knots, self.expected)]

    def interval(self, rows: Sequence[Mapping[str, Any]]) -> list[tuple[float, float]]:
        """Where the expected IoU lies with 90 % confidence, as far as the size of the audited set is concerned."""
        order = self._order(rows)
        lower, upper = np.interp(order, self.knots, self.lower), np.interp(order, self.knots, self.upper)
        return [(float(a), float(b)) for a, b in zip(lower, upper, strict=True)]

    def _order(self, rows: Sequence[Mapping[str, Any]]) -> Float64[np.ndarray, " n"]:
        features = feature_matrix(rows, self.class_counts)
        return _sigmoid((features - self.mean) / self.scale @ np.array(self.weights) + self.intercept)

    @cached_property
    def digest(self) -> str:
        """Content hash, for provenance."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    def to_json(self) -> str:
        return json.dumps(asdict(self), sort_keys=True, indent=1)

    @classmethod
    def from_json(cls, text: str, *, where: str) -> "Calibration":
        """A saved calibration.

        Raises:
            InputError: it is none, or it was made by another version.
        """
        try:
            values = json.loads(text)
            values["class_counts"] = {int(key): count for key, count in values["class_counts"].items()}
            calibration = cls(**values)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise InputError(f"{where}: not a calibration ({error}); make one with  pseudolabel calibrate") from None
        if calibration.version != VERSION or calibration.features != list(FEATURES):
            raise InputError(f"{where}: made by another version; run  pseudolabel calibrate  again")
        return calibration


def load_calibration(path: Path) -> Calibration:
    """The calibration in a file.

    Raises:
        InputError: there is none that can be read.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: {error}") from None
    return Calibration.from_json(text, where=str(path))


def fit_calibration(
    rows: Sequence[Mapping[str, Any]],
    iou: Float64[np.ndarray, " n"],
    *,
    provenance: Mapping[str, Any] | None = None,
    bootstraps: int = 200,
    seed: int = 0,
) -> Calibration:
    """A calibration learned from rows of `records.PSEUDO` and their masks' true IoU.

    Folds and bootstrap samples are made of whole images, because objects of one photograph are alike.

    Raises:
        InputError: fewer than 30 objects, or all from fewer images than there are folds.
    """
    images = [row["image_key"] for row in rows]
    if len(rows) < MIN_OBJECTS or len(set(images)) < _FOLDS:
        raise InputError(
            f"{len(rows)} objects in {len(set(images))} images are too few to calibrate on; "
            f"audit at least {MIN_OBJECTS} objects in {_FOLDS} images"
        )
    class_counts = dict(sorted(Counter(row["category_id"] for row in rows).items()))
    features = feature_matrix(rows, class_counts)
    held_out = _held_out_predictions(features, iou, images)
    model = _Regression.fit(features, iou)
    knots = np.unique(np.quantile(held_out, np.linspace(0, 1, _KNOTS)))
    curve = _isotonic(held_out, iou, knots)
    lower, upper = _bootstrap_interval(held_out, iou, images, knots, bootstraps, seed)
    return Calibration(
        mean=model.mean.tolist(),
        scale=model.scale.tolist(),
        weights=model.weights.tolist(),
        intercept=model.intercept,
        knots=knots.tolist(),
        expected=curve.tolist(),
        lower=np.minimum(lower, curve).tolist(),
        upper=np.maximum(upper, curve).tolist(),
        class_counts=class_counts,
        provenance=dict(provenance or {}),
    )


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


@dataclass(frozen=True)
class _Regression:
    mean: Float64[np.ndarray, " f"]
    scale: Float64[np.ndarray, " f"]
    weights: Float64[np.ndarray, " f"]
    intercept: float

    @classmethod
    def fit(cls, features: Float64[np.ndarray, "n f"], iou: Float64[np.ndarray, " n"]) -> "_Regression":
        """Logistic regression whose target is a share: every object counts `iou` as a yes and the rest as a no."""
        from sklearn.linear_model import LogisticRegression  # seconds, which who applies a calibration does not have

        mean, scale = features.mean(axis=0), features.std(axis=0)
        scale = np.where(scale > 1e-9, scale, 1.0)
        standard = (features - mean) / scale
        yes = np.repeat([1, 0], len(iou))
        model = LogisticRegression(C=_STRENGTH, max_iter=1000)
        model.fit(np.concatenate([standard, standard]), yes, sample_weight=np.concatenate([iou, 1 - iou]) + 1e-9)
        return cls(mean, scale, model.coef_[0], float(model.intercept_[0]))

    def predict(self, features: Float64[np.ndarray, "n f"]) -> Float64[np.ndarray, " n"]:
        return _sigmoid((features - self.mean) / self.scale @ self.weights + self.intercept)


def _held_out_predictions(
    features: Float64[np.ndarray, "n f"], iou: Float64[np.ndarray, " n"], images: Sequence[str]
) -> Float64[np.ndarray, " n"]:
    """Every object's prediction by a regression that has not seen its image."""
    fold = image_folds(images)
    out = np.empty(len(iou))
    for k in range(_FOLDS):
        out[fold == k] = _Regression.fit(features[fold != k], iou[fold != k]).predict(features[fold == k])
    return out


def _isotonic(
    order: Float64[np.ndarray, " n"], iou: Float64[np.ndarray, " n"], knots: Float64[np.ndarray, " k"]
) -> Float64[np.ndarray, " k"]:
    from sklearn.isotonic import IsotonicRegression

    model = IsotonicRegression(y_min=0.0, y_max=1.0, out_of_bounds="clip").fit(order, iou)
    curve: Float64[np.ndarray, " k"] = model.predict(knots)
    return curve


def _bootstrap_interval(
    order: Float64[np.ndarray, " n"],
    iou: Float64[np.ndarray, " n"],
    images: Sequence[str],
    knots: Float64[np.ndarray, " k"],
    bootstraps: int,
    seed: int,
) -> tuple[Float64[np.ndarray, " k"], Float64[np.ndarray, " k"]]:
    """Percentile interval of the curve under resampling of whole images; the curve itself for no bootstrap."""
    generator = np.random.default_rng(seed)
    names, image = np.unique(images, return_inverse=True)
    members = [np.flatnonzero(image == i) for i in range(len(names))]
    curves = []
    for _ in range(bootstraps):
        sample = np.concatenate([members[i] for i in generator.integers(len(names), size=len(names))])
        curves.append(_isotonic(order[sample], iou[sample], knots))
    if not curves:
        curves.append(_isotonic(order, iou, knots))
    lower, upper = np.percentile(curves, _INTERVAL, axis=0)
    return lower, upper


def _sigmoid(x: Float64[np.ndarray, " n"]) -> Float64[np.ndarray, " n"]:
    value: Float64[np.ndarray, " n"] = 1 / (1 + np.exp(-x))
    return value
