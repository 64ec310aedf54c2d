"""What a pseudo label's row tells about how good its mask is, as numbers that a score is learned from."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float64

Row = Mapping[str, Any]
_LEAST_SPREAD = 0.01  # below it one spread is as good as another


def _log_odds(share: float) -> float:
    if math.isnan(share):
        return share
    clipped = min(max(share, 0.02), 0.98)
    return math.log(clipped / (1 - clipped))


def _sign(row: Row, name: str) -> float:
    value = (row.get("evidence") or {}).get(name)
    return math.nan if value is None else float(value)


def _log_spread(row: Row) -> float:
    spread = _sign(row, "spread")
    return spread if math.isnan(spread) else math.log(spread + _LEAST_SPREAD)


_FEATURES: dict[str, Callable[[Row], float]] = {
    "sources": lambda row: _log_odds(_sign(row, "sources")),
    "agreement": lambda row: 0.0 if row["agreement"] is None else _log_odds(row["agreement"]),
    "one_source": lambda row: float(row["agreement"] is None),
    "spread": _log_spread,
    "contrast": lambda row: _sign(row, "contrast"),
    "edges": lambda row: _sign(row, "edges"),
    "covered": lambda row: _sign(row, "covered"),
    "fill": lambda row: _sign(row, "fill"),
    "solidity": lambda row: _sign(row, "solidity"),
}
FEATURES = tuple(_FEATURES)


def feature_matrix(rows: Sequence[Row]) -> Float64[np.ndarray, "n features"]:
    """One line per row of `records.PSEUDO`, columns as in `FEATURES`; NaN where a row does not know."""
    lines = [[feature(row) for feature in _FEATURES.values()] for row in rows]
    return np.array(lines, dtype=np.float64).reshape(len(rows), len(FEATURES))
