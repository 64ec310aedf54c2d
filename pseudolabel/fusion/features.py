"""What a pseudo label's row tells about how good its mask is, as numbers that a score is learned from."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float64

Row = Mapping[str, Any]
# what is usual, where a sign counts by how far it is from that: of masks whose sources were asked by their boxes
_USUAL = {"consensus": 2.0, "contrast": 0.4, "edges": 0.7}


def _log_odds(share: float) -> float:
    if math.isnan(share):
        return share
    clipped = min(max(share, 0.02), 0.98)
    return math.log(clipped / (1 - clipped))


def _sign(row: Row, name: str) -> float:
    value = (row.get("evidence") or {}).get(name)
    return math.nan if value is None else float(value)


def _if_prompted(row: Row, name: str) -> float:
    """A sign less what is usual where a source was asked by the box, else 0: there it counts for more or for less."""
    value = _of(row, name) - _USUAL[name]
    return value if _sign(row, "prompted") == 1 and not math.isnan(value) else 0.0


def _of(row: Row, name: str) -> float:
    return _log_odds(_sign(row, name)) if name == "consensus" else _sign(row, name)


_FEATURES: dict[str, Callable[[Row], float]] = {
    "prompted": lambda row: _sign(row, "prompted"),
    "consensus": lambda row: _of(row, "consensus"),
    "consensus_if_prompted": lambda row: _if_prompted(row, "consensus"),
    "contrast": lambda row: _of(row, "contrast"),
    "contrast_if_prompted": lambda row: _if_prompted(row, "contrast"),
    "edges": lambda row: _of(row, "edges"),
    "edges_if_prompted": lambda row: _if_prompted(row, "edges"),
    "covered": lambda row: _sign(row, "covered"),
    "fill": lambda row: _sign(row, "fill"),
    "solidity": lambda row: _sign(row, "solidity"),
}
FEATURES = tuple(_FEATURES)


def feature_matrix(rows: Sequence[Row]) -> Float64[np.ndarray, "n features"]:
    """One line per row of `records.PSEUDO`, columns as in `FEATURES`; NaN where a row does not know."""
    lines = [[feature(row) for feature in _FEATURES.values()] for row in rows]
    return np.array(lines, dtype=np.float64).reshape(len(rows), len(FEATURES))
