"""Laws that every registered segmenter keeps; a new one is picked up by its name."""

from pathlib import Path

import numpy as np
import pytest
import specimens

from pseudolabel.segmenters.base import IGNORE_INDEX, SEGMENTERS, Photo, Segmenter, SemanticResult, open_segmenter

_RANDOM = np.random.default_rng(4)
PHOTOS = [
    Photo("a.png", (40, 56), _RANDOM.integers(0, 256, (40, 56, 3)).astype(np.uint8)),
    Photo("b.png", (33, 21), _RANDOM.integers(0, 256, (33, 21, 3)).astype(np.uint8)),
]


@pytest.fixture(scope="module", params=list(SEGMENTERS))
def segmenter(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Segmenter:
    spec, options = specimens.SEGMENTERS[request.param](tmp_path_factory.mktemp(request.param))
    opened = open_segmenter(spec, options)
    opened.probe()
    return opened


def _results(segmenter: Segmenter, photos: list[Photo]) -> list[SemanticResult]:
    found = segmenter.predict(photos)
    assert all(isinstance(one, SemanticResult) for one in found), found
    return [one for one in found if isinstance(one, SemanticResult)]


def test_a_segmenter_names_its_classes(segmenter: Segmenter) -> None:
    assert len(segmenter.classes) == len(set(segmenter.classes)) > 0
    assert segmenter.batch_size >= 1


def test_there_is_a_result_for_every_photo_at_its_own_size(segmenter: Segmenter) -> None:
    results = _results(segmenter, PHOTOS)
    assert [one.label_map.shape for one in results] == [photo.size_hw for photo in PHOTOS]
    assert [one.confidence.shape for one in results] == [photo.size_hw for photo in PHOTOS]
    assert {one.label_map.dtype for one in results} | {one.confidence.dtype for one in results} == {np.dtype(np.uint8)}


def test_a_label_is_a_class_or_ignored(segmenter: Segmenter) -> None:
    for one in _results(segmenter, PHOTOS):
        assert set(np.unique(one.label_map)) <= {*range(len(segmenter.classes)), IGNORE_INDEX}


def test_a_photo_s_result_does_not_depend_on_its_company(segmenter: Segmenter) -> None:
    together, alone = _results(segmenter, PHOTOS), _results(segmenter, PHOTOS[1:])
    assert np.array_equal(together[1].label_map, alone[0].label_map)
    assert np.array_equal(together[1].confidence, alone[0].confidence)


def test_no_photo_gives_no_result(segmenter: Segmenter) -> None:
    assert segmenter.predict([]) == []


def test_every_segmenter_has_a_specimen() -> None:
    assert set(specimens.SEGMENTERS) == set(SEGMENTERS), "add yours to tests/contracts/specimens.py"


def test_the_specimens_lie_where_they_are_made(tmp_path: Path) -> None:
    spec, _ = specimens.SEGMENTERS["labels"](tmp_path)
    assert spec == f"labels:{tmp_path}"
