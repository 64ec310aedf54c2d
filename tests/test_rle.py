"""RLE: byte for byte against pycocotools, round trips, and a checker that lets nothing unsafe through."""

import math
import random
import resource
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pycocotools import mask as coco_mask

from pseudolabel import rle
from pseudolabel.errors import RejectError
from pseudolabel.masks import PixelMask

masks = hnp.arrays(np.bool_, hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=40))


def theirs(mask: np.ndarray) -> dict[str, Any]:
    encoded = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": list(encoded["size"]), "counts": encoded["counts"].decode()}


def placed(crop: np.ndarray, x0: int, y0: int, size_hw: tuple[int, int]) -> np.ndarray:
    full = np.zeros(size_hw, dtype=bool)
    full[y0 : y0 + crop.shape[0], x0 : x0 + crop.shape[1]] = crop
    return full


@given(masks)
@settings(max_examples=150, deadline=None)
def test_encoding_is_pycocotools_byte_for_byte_and_round_trips(mask: np.ndarray) -> None:
    encoded = rle.encode(mask)
    assert encoded == theirs(mask)
    assert np.array_equal(rle.decode(encoded), mask)


@given(masks, st.tuples(*[st.integers(0, 20)] * 4))
@settings(max_examples=150, deadline=None)
def test_encoding_a_crop_equals_encoding_the_full_mask(crop: np.ndarray, margins: tuple[int, int, int, int]) -> None:
    left, top, right, bottom = margins
    size_hw = (crop.shape[0] + top + bottom, crop.shape[1] + left + right)
    full = placed(crop, left, top, size_hw)
    encoded = rle.encode_crop(PixelMask(left, top, crop), size_hw)
    assert encoded == theirs(full)
    cut = rle.decode_crop(encoded)
    assert np.array_equal(placed(cut.pixels, cut.x0, cut.y0, size_hw), full)
    assert rle.area(encoded) == full.sum()
    assert list(rle.bbox_xywh(encoded)) == coco_mask.toBbox(theirs(full)).tolist()


@pytest.mark.parametrize(
    "mask",
    [
        pytest.param(np.zeros((7, 9), dtype=bool), id="empty"),
        pytest.param(np.ones((7, 9), dtype=bool), id="full"),
        pytest.param(np.ones((1, 1), dtype=bool), id="one pixel"),
        pytest.param(np.pad(np.zeros((5, 7), dtype=bool), 1, constant_values=True), id="frame on every border"),
        pytest.param(np.eye(30, dtype=bool), id="diagonal"),
        pytest.param(np.indices((300, 200)).sum(0) % 2 == 0, id="checkerboard"),
    ],
)
def test_rle_round_trips_a_mask_that_touches_every_border(mask: np.ndarray) -> None:
    encoded = rle.encode(mask)
    assert encoded == theirs(mask)
    assert np.array_equal(rle.decode(encoded), mask)
    assert rle.check_rle(encoded, mask.shape) == encoded


def test_a_crop_is_cut_to_the_exact_extent_of_the_mask() -> None:
    full = np.zeros((20, 30), dtype=bool)
    full[3:5, 7] = full[4, 7:11] = True
    cut = rle.decode_crop(rle.encode(full))
    assert (cut.x0, cut.y0, cut.pixels.shape) == (7, 3, (2, 4))
    assert rle.bbox_xywh(rle.encode(full)) == (7, 3, 4, 2)


def test_an_empty_mask_has_an_empty_extent() -> None:
    encoded = rle.encode_crop(PixelMask(3, 4, np.zeros((0, 0), dtype=bool)), (10, 10))
    assert rle.decode_crop(encoded).pixels.shape == (0, 0)
    assert rle.bbox_xywh(encoded) == (0, 0, 0, 0)


@pytest.mark.parametrize("corner", [(-1, 0), (0, -1), (5, 0), (0, 7)])
def test_a_crop_beside_the_image_is_an_error(corner: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="not on an image"):
        rle.encode_crop(PixelMask(*corner, np.ones((4, 6), dtype=bool)), (10, 10))


def test_a_mask_of_bytes_is_an_error_instead_of_wrong_runs() -> None:
    with pytest.raises((ValueError, TypeError), match=r"[Bb]ool"):
        rle.encode_crop(PixelMask(0, 0, np.full((4, 6), 255, dtype=np.uint8)), (10, 10))


def test_uncompressed_counts_become_the_same_string() -> None:
    mask = np.zeros((4, 5), dtype=bool)
    mask[1:3, 2] = True
    assert rle.check_rle({"size": [4, 5], "counts": [9, 2, 9]}, (4, 5)) == theirs(mask)


SOUND = theirs(np.indices((6, 8)).sum(0) % 3 == 0)
BIG = 2**70


@pytest.mark.parametrize(
    "value",
    [
        pytest.param({"size": [6, 8], "counts": [40]}, id="counts sum below"),
        pytest.param({"size": [6, 8], "counts": [40, 9]}, id="counts sum above"),
        pytest.param({"size": [6, 8], "counts": []}, id="no counts"),
        pytest.param({"size": [6, 8], "counts": ""}, id="empty string"),
        pytest.param({"size": [6, 8], "counts": [50, -2]}, id="negative count"),
        pytest.param({"size": [6, 8], "counts": [2**32, 48 - 2**32]}, id="counts that wrap around"),
        pytest.param({"size": [6, 8], "counts": [BIG, 48 - BIG]}, id="counts beyond 64 bit"),
        pytest.param({"size": [6, 8], "counts": [48.0]}, id="float count"),
        pytest.param({"size": [6, 8], "counts": [math.nan]}, id="nan count"),
        pytest.param({"size": [6, 8], "counts": ["48"]}, id="text count"),
        pytest.param({"size": [6, 8], "counts": [47, True]}, id="bool count"),
        pytest.param({"size": [6, 8], "counts": [[48]]}, id="nested counts"),
        pytest.param({"size": [6, 8], "counts": [48, *[0] * 60]}, id="more counts than pixels"),
        pytest.param({"size": [6, 8], "counts": None}, id="counts null"),
        pytest.param({"size": [6, 8], "counts": SOUND["counts"] + "P"}, id="dangling continuation"),
        pytest.param({"size": [6, 8], "counts": "PPPPPPPPPPPPPPPP0"}, id="a number of 17 groups"),
        pytest.param({"size": [6, 8], "counts": "/" + SOUND["counts"]}, id="character below 48"),
        pytest.param({"size": [6, 8], "counts": "p" + SOUND["counts"]}, id="character above 111"),
        pytest.param({"size": [6, 8], "counts": "é"}, id="not ascii"),
        pytest.param({"size": [6, 8], "counts": "\ud800"}, id="surrogate"),
        pytest.param({"size": [6, 8], "counts": "\0"}, id="nul"),
        pytest.param({"size": [6, 8], "counts": str(SOUND["counts"].encode())}, id="repr of bytes"),
        pytest.param({"counts": SOUND["counts"]}, id="no size"),
        pytest.param({"size": [8, 6], "counts": SOUND["counts"]}, id="sides swapped"),
        pytest.param({"size": [0, 8], "counts": SOUND["counts"]}, id="zero side"),
        pytest.param({"size": [-6, -8], "counts": SOUND["counts"]}, id="negative sides"),
        pytest.param({"size": [6.0, 8], "counts": SOUND["counts"]}, id="float side"),
        pytest.param({"size": ["6", "8"], "counts": SOUND["counts"]}, id="text sides"),
        pytest.param({"size": [48], "counts": SOUND["counts"]}, id="one side"),
        pytest.param({"size": [6, 8, 1], "counts": SOUND["counts"]}, id="three sides"),
        pytest.param({"size": [2**31, 2**31], "counts": [2**62]}, id="2**31 squared"),
        pytest.param({"size": [BIG, 1], "counts": [BIG]}, id="2**70"),
        pytest.param([1, 2], id="a flat list"),
        pytest.param(None, id="null"),
    ],
)
def test_a_damaged_rle_is_refused(value: object) -> None:
    with pytest.raises(RejectError) as caught:
        rle.check_rle(value, (6, 8))
    assert caught.value.reason == "bad_segmentation"
    assert caught.value.detail


@pytest.mark.parametrize("side", [0, -6, 2**31, 2**70])
def test_an_impossible_size_is_refused_even_where_the_image_claims_it_too(side: int) -> None:
    with pytest.raises(RejectError, match="size"):
        rle.check_rle({"size": [side, side], "counts": [side * side]}, (side, side))


def test_mutated_strings_are_refused_or_mean_what_pycocotools_reads() -> None:
    rng = random.Random(0)
    sound = [theirs(np.random.default_rng(seed).random((12, 17)) < 0.3)["counts"] for seed in range(20)]
    accepted = 0
    for _ in range(20_000):
        text = list(rng.choice(sound))
        for _ in range(rng.choice((1, 1, 2, 4))):
            place = rng.randrange(len(text))
            text[place : place + rng.randrange(2)] = [chr(rng.randrange(44, 115))] * rng.randrange(1, 3)
        try:
            checked = rle.check_rle({"size": [12, 17], "counts": "".join(text)}, (12, 17))
        except RejectError:
            continue
        accepted += 1
        assert np.array_equal(rle.decode(checked), coco_mask.decode(checked).astype(bool))
        assert rle.area(checked) == coco_mask.area(checked)
    assert accepted > 20


@pytest.mark.parametrize(
    "polygons",
    [
        pytest.param([], id="none"),
        pytest.param([[]], id="empty polygon"),
        pytest.param([1, 2, 3, 4, 5, 6], id="flat list"),
        pytest.param([[[1, 2], [3, 4], [5, 6]]], id="nested points"),
        pytest.param([[1, 2, 3, 4]], id="two points"),
        pytest.param([[1, 2, 3, 4, 5, 6, 7]], id="odd"),
        pytest.param([["1", "2", "3", "4", "5", "6"]], id="text"),
        pytest.param([[1, 2, 3, 4, None, 6]], id="null"),
        pytest.param([[1, 2, 3, 4, True, 6]], id="bool"),
        pytest.param([[1, 2, 3, 4, math.nan, 6]], id="nan"),
        pytest.param([[math.nan, 2, 3, 4, 5, 6]], id="nan first"),
        pytest.param([[1, 2, 3, 4, math.inf, 6]], id="inf"),
        pytest.param([[1, 2, 3, 4, 1e8, 6]], id="1e8"),
        pytest.param([[1, 2, 3, 4, -1e300, 6]], id="-1e300"),
        pytest.param([[1, 2, 3, 4, 10**400, 6]], id="400 digits"),
        pytest.param("polygon", id="string"),
        pytest.param(None, id="nothing"),
        pytest.param([[200, 0, 210, 0, 210, 9]], id="beside the image"),
        pytest.param([[5, 5, 5, 5, 5, 5]], id="no area"),
        pytest.param([[0, 0, 10, 0, 20, 0]], id="on one line"),
    ],
)
def test_a_damaged_polygon_is_refused(polygons: object) -> None:
    with pytest.raises(RejectError) as caught:
        rle.from_segmentation(polygons, (100, 120))
    assert caught.value.reason == "bad_segmentation"


def test_polygons_are_painted_as_pycocotools_paints_them_and_united() -> None:
    polygons = [[1, 1, 9, 1, 9, 6, 1, 6], [7.5, 4.5, 14, 4.5, 14, 9, 7.5, 9]]
    expected = sum(coco_mask.decode(part) for part in coco_mask.frPyObjects(polygons, 20, 30)) > 0
    encoded = rle.from_segmentation(polygons, (20, 30))
    assert np.array_equal(rle.decode(encoded), expected)
    assert rle.decode(encoded)[1:6, 1:9].all()


def test_a_polygon_of_40000_points_is_refused_at_once() -> None:
    zigzag = [value for step in range(20_000) for value in (step % 4000, 0 if step % 2 else 3999)]
    start = time.process_time()
    with pytest.raises(RejectError, match="px long"):
        rle.from_segmentation([zigzag], (4000, 4000))
    assert time.process_time() - start < 2


def test_the_longest_outline_that_is_painted_takes_under_two_seconds_and_half_a_gigabyte() -> None:
    steps = rle.MAX_PERIMETER_PX // 4000 - 3
    zigzag = [value for step in range(steps) for value in (step * 3999 / steps, 3999 if step % 2 else 0)]
    before_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.process_time()
    encoded = rle.from_segmentation([zigzag], (4000, 4000))
    assert time.process_time() - start < 2
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kb < 500_000
    assert rle.area(encoded) > 0


def test_200000_runs_are_checked_in_under_two_seconds() -> None:
    counts = [1] * 200_000
    start = time.process_time()
    checked = rle.check_rle({"size": [400, 500], "counts": counts}, (400, 500))
    assert rle.area(checked) == 100_000
    assert time.process_time() - start < 2
