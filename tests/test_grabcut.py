"""GrabCut as the baseline that papers compare with: on a picture whose answer is known, and where it has none."""

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

SCRIPTS = Path(__file__).parent / "benchmarks"
SIDE = 80


@pytest.fixture
def grabcut(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import grabcut

    return grabcut


def _disc(radius: float) -> np.ndarray:
    y, x = np.mgrid[:SIDE, :SIDE] + 0.5
    return (x - SIDE / 2) ** 2 + (y - SIDE / 2) ** 2 < radius**2


def _picture(mask: np.ndarray) -> np.ndarray:
    noise = np.random.default_rng(0).normal(0, 8, (SIDE, SIDE, 3))
    return (np.where(mask[..., None], [200, 60, 40], [40, 90, 160]) + noise).clip(0, 255).astype(np.uint8)


def test_a_disc_of_its_own_colour_is_found(grabcut: ModuleType) -> None:
    disc = _disc(15)
    found = grabcut.grabcut(_picture(disc), (25.0, 25.0, 55.0, 55.0))
    whole = np.zeros_like(disc)
    whole[found.y0 :, found.x0 :][: found.pixels.shape[0], : found.pixels.shape[1]] = found.pixels
    assert (whole & disc).sum() / (whole | disc).sum() > 0.95


@pytest.mark.parametrize(
    "box",
    [(25.0, 25.0, 26.0, 55.0), (0.0, 0.0, float(SIDE), float(SIDE))],
    ids=["one pixel wide: nothing to learn two mixtures from", "the whole picture: no background"],
)
def test_where_it_has_no_answer_it_gives_none(grabcut: ModuleType, box: tuple[float, float, float, float]) -> None:
    assert grabcut.grabcut(_picture(_disc(15)), box) is None
