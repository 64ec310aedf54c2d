"""From the evidence on a pseudo label's row to the IoU that its mask can be expected to have with the true one.

A logistic regression whose target is a share: what it gives is the expected IoU. One is learned from several data sets
by tests/benchmarks/score.py and ships with the package; `calibrate` moves it towards a set of its own.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache, cached_property
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64

from pseudolabel.errors import InputError
from pseudolabel.fusion.features import FEATURES, feature_matrix

VERSION = 3
_STEPS = 50  # of Newton's method at most
_CLOSE = 1e-9


@dataclass(frozen=True)
class Chances:
    """How likely a mask of a score is to be good, from masks whose truth was known and which nothing learned from."""

    scores: list[float]  # evenly over the ranks of these masks, rising
    ious: list[float]  # what "good" means, rising
    shares: list[list[float]]  # for every such IoU, of the masks around each score the share that has it

    def above(self, at_iou: float) -> Float64[np.ndarray, " k"]:
        """Share of the masks at each of the scores whose IoU with the truth is at least `at_iou`."""
        columns = np.array(self.shares).T
        return np.array([np.interp(at_iou, self.ious, column) for column in columns])

    def of(self, scores: Sequence[float], at_iou: float) -> Float64[np.ndarray, " n"]:
        """How likely masks of these scores are to have at least `at_iou`."""
        chance: Float64[np.ndarray, " n"] = np.interp(scores, self.scores, self.above(at_iou))
        return chance

    def score_for(self, target: float, at_iou: float) -> float:
        """The lowest score from which on the target share of the masks has at least `at_iou`.

        Raises:
            InputError: not even the best masks reach it.
        """
        above = self.above(at_iou)[::-1]
        reached = np.flatnonzero(np.cumsum(above) / np.arange(1, len(above) + 1) >= target)
        if not reached.size:
            raise InputError(
                f"target precision {target:g}: of the masks with the best scores {above[0]:.0%} have an IoU of "
                f"{at_iou:g}; ask for less, or give --keep-score"
            )
        return self.scores[len(self.scores) - 1 - int(reached[-1])]


@dataclass(frozen=True)
class ScoreModel:
    """Expected mask IoU as a function of a pseudo label's row."""

    mean: list[float]
    scale: list[float]
    weights: list[float]
    intercept: float
    chances: Chances
    provenance: dict[str, Any] = field(default_factory=dict)
    features: list[str] = field(default_factory=lambda: list(FEATURES))
    version: int = VERSION

    def expected_iou(self, rows: Sequence[Mapping[str, Any]]) -> list[float]:
        """Expected IoU of every row's mask with the true one."""
        logits = self.standard(rows) @ np.array(self.weights) + self.intercept
        return [float(value) for value in sigmoid(logits)]

    def standard(self, rows: Sequence[Mapping[str, Any]]) -> Float64[np.ndarray, "n f"]:
        """The rows' features in standard deviations of the masks that the model was first learned from.

        What a row does not know counts as the mean.
        """
        return np.nan_to_num((feature_matrix(rows) - self.mean) / self.scale)

    @cached_property
    def digest(self) -> str:
        """Content hash, for provenance."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    def to_json(self) -> str:
        return json.dumps(asdict(self), sort_keys=True, indent=1)

    @classmethod
    def from_json(cls, text: str, *, where: str) -> "ScoreModel":
        """A saved model.

        Raises:
            InputError: it is none, or it was made by another version.
        """
        try:
            values = json.loads(text)
            model = cls(**{**values, "chances": Chances(**values["chances"])})
            numbers = np.array([model.mean, model.scale, model.weights], dtype=np.float64)
            sound = np.isfinite(numbers).all() and np.isfinite(model.intercept) and (numbers[1] > 0).all()
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise InputError(f"{where}: not a calibration ({error}); make one with  pseudolabel calibrate") from None
        if model.version != VERSION or model.features != list(FEATURES):
            raise InputError(f"{where}: made by another version; run  pseudolabel calibrate  again")
        if not sound or numbers.shape != (3, len(FEATURES)):
            raise InputError(f"{where}: not a calibration (bad numbers); make one with  pseudolabel calibrate")
        return model


def load_score_model(path: Path) -> ScoreModel:
    """The model in a file, such as `calibrate` writes.

    Raises:
        InputError: there is none that can be read.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: {error}") from None
    return ScoreModel.from_json(text, where=str(path))


@cache
def default_score_model() -> ScoreModel:
    """The one that ships with the package; its provenance says what it was learned from."""
    text = resources.files("pseudolabel.fusion").joinpath("score.json").read_text(encoding="utf-8")
    return ScoreModel.from_json(text, where="score.json")


def fit_weights(
    features: Float64[np.ndarray, "n f"],
    iou: Float64[np.ndarray, " n"],
    *,
    towards: Float64[np.ndarray, " f+1"],
    strength: Float64[np.ndarray, " f+1"],
    counts: Float64[np.ndarray, " n"] | None = None,
) -> Float64[np.ndarray, " f+1"]:
    """Intercept and weights of a logistic regression of shares, drawn to what was known before.

    Minimises the cross-entropy between `iou` and its prediction, summed over the objects, plus half of
    strength x (weight - towards)^2: Newton's method with halved steps, as the sum is convex.

    Args:
        features: standardised.
        iou: the targets, in [0, 1].
        towards: intercept and weights where nothing is learned.
        strength: of the pull to them, in objects' worth; zero or more.
        counts: how often each object counts; once where not given.
    """
    design = np.concatenate([np.ones((len(iou), 1)), features], axis=1)
    counts = np.ones(len(iou)) if counts is None else counts
    weights = towards.astype(np.float64)

    def cost(candidate: Float64[np.ndarray, " f+1"]) -> float:
        logit = design @ candidate
        entropy = counts @ (np.logaddexp(0, logit) - iou * logit)
        return float(entropy + strength @ (candidate - towards) ** 2 / 2)

    for _ in range(_STEPS):
        share = sigmoid(design @ weights)
        slope = design.T @ (counts * (share - iou)) + strength * (weights - towards)
        bend = (design * (counts * share * (1 - share))[:, None]).T @ design + np.diag(strength)
        step = np.linalg.lstsq(bend, slope, rcond=None)[0]
        factor = 1.0
        while cost(weights - factor * step) > cost(weights) and factor > _CLOSE:
            factor /= 2
        weights = weights - factor * step
        if np.abs(factor * step).max() < _CLOSE:
            break
    return weights


def sigmoid(x: Float64[np.ndarray, " n"]) -> Float64[np.ndarray, " n"]:
    """1 / (1 + exp(-x)), without overflow."""
    value: Float64[np.ndarray, " n"] = np.exp(-np.logaddexp(0, -x))
    return value
