from typing import Literal

import pytest

from pseudolabel.config import Config, option, parse_config, result_relevant
from pseudolabel.errors import ConfigError


class Fusion(Config):
    threshold: float = option(0.5, "a threshold", ge=0, le=1)
    ranking: Literal["bqr", "bpma"] = option("bqr", "the ranking")
    workers: int = option(1, "processes", changes_result=False)


def test_all_problems_are_told_at_once_with_the_nearest_key() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(Fusion, {"treshold": 0.5, "ranking": "x", "threshold": 1.5}, where="run.yaml: fuse")
    message = str(caught.value)
    assert "unknown key 'treshold'; did you mean 'threshold'?" in message
    assert "less than or equal to 1" in message
    assert "ranking" in message
    assert message.startswith("run.yaml: fuse")


def test_nan_is_no_threshold() -> None:
    with pytest.raises(ConfigError, match="finite"):
        parse_config(Fusion, {"threshold": float("nan")}, where="fuse")


def test_what_cannot_change_a_result_is_left_out_of_the_fingerprint() -> None:
    assert result_relevant(Fusion(workers=9)) == {"threshold": 0.5, "ranking": "bqr"}
