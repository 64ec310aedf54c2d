import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from pycocotools import mask as coco_mask

from pseudolabel.errors import RejectError
from pseudolabel.rle import check_rle
from pseudolabel.rle_batch import measured, measured_one, sample

sizes = st.tuples(st.integers(1, 9), st.integers(1, 9))
masks = st.lists(sizes.flatmap(lambda size: arrays.arrays(np.uint8, size, elements=st.integers(0, 1))), max_size=6)


@given(masks)
def test_area_and_extent_are_those_of_the_pixels(pixels: list[np.ndarray]) -> None:
    texts = [coco_mask.encode(np.asfortranarray(one))["counts"].decode("ascii") for one in pixels]
    found = measured(texts, [(one.shape[0], one.shape[1]) for one in pixels])
    assert found.sound.all()
    assert found.area.tolist() == [int(one.sum()) for one in pixels]
    for one, box in zip(pixels, found.bbox_xywh.tolist(), strict=True):
        rows, columns = np.nonzero(one)
        extent = [columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1] if rows.size else [0] * 4
        assert box == extent


@given(st.lists(st.text(st.sampled_from("0123KMOPQ`ao_~ \x00é?"), max_size=8), max_size=6), sizes)
def test_what_is_called_sound_is_sound(texts: list[str], size_hw: tuple[int, int]) -> None:
    found = measured(texts, [size_hw] * len(texts))
    for text, sound in zip(texts, found.sound.tolist(), strict=True):
        if sound:
            check_rle({"size": list(size_hw), "counts": text}, size_hw)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="nothing"),
        pytest.param("0000", id="another sum"),
        pytest.param("`U", id="ends within a number"),
        pytest.param("<\x00", id="another character"),
        pytest.param("é", id="no ASCII"),
        pytest.param("0000000000000<", id="more counts than pixels"),
        pytest.param("OMM<", id="a count below 0"),
        pytest.param("oooooooooooooooo0", id="a number without end"),
    ],
)
def test_a_damaged_string_is_not_sound_and_does_not_hurt_its_neighbours(text: str) -> None:
    with pytest.raises(RejectError):
        check_rle({"size": [3, 4], "counts": text}, (3, 4))
    found = measured(["3220", text, "<"], [(3, 3), (3, 4), (3, 4)])
    assert found.sound.tolist() == [True, False, True]
    assert found.area.tolist()[0] == 4
    assert found.bbox_xywh.tolist()[0] == [1, 0, 2, 3]


def test_no_masks_are_measured_to_nothing() -> None:
    assert measured([], []).bbox_xywh.shape == (0, 4)


def test_measuring_and_writing_load_no_compiled_loops() -> None:
    code = "import sys, pseudolabel.formats.coco; assert not {'numba', 'torch', 'scipy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@given(sizes.flatmap(lambda size: arrays.arrays(np.uint8, size, elements=st.integers(0, 1))), st.data())
def test_a_sample_of_a_mask_has_its_pixels_at_these_rows_and_columns(pixels: np.ndarray, data: st.DataObject) -> None:
    encoded = coco_mask.encode(np.asfortranarray(pixels))
    rows, columns = (
        np.array(data.draw(st.lists(st.integers(0, side - 1), max_size=5)), dtype=np.int64) for side in pixels.shape
    )
    found = sample({"size": list(pixels.shape), "counts": encoded["counts"].decode("ascii")}, rows, columns)
    assert np.array_equal(found, pixels[np.ix_(rows, columns)])


def test_one_mask_that_is_not_sound_is_refused() -> None:
    with pytest.raises(RejectError, match="damaged"):
        measured_one({"size": [3, 4], "counts": "0000"})
    assert measured_one({"size": [3, 3], "counts": "3220"}) == (4, (1, 0, 2, 3))
