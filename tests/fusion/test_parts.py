import numpy as np
import pytest

from pseudolabel.fusion.exclusive import STAKE, UPRIGHT, Claim, Share, shared_out, yielded
from pseudolabel.fusion.parts import without_islands, without_pinholes
from pseudolabel.masks import Grid


def picture(*lines: str) -> np.ndarray:
    return np.array([[c == "#" for c in line] for line in lines])


def test_a_crumb_goes_and_a_second_part_stays() -> None:
    mask = np.zeros((20, 20), dtype=bool)
    mask[2:12, 2:8] = True  # 60 px
    mask[2:12, 10:14] = True  # 40 px, behind a pole
    mask[18, 18] = True
    got = without_islands(mask, smallest_share=0.05)
    assert got.sum() == 100
    assert not got[18, 18]


def test_parts_that_touch_at_a_corner_are_one() -> None:
    mask = picture("##..", "##..", "..#.")
    assert without_islands(mask, smallest_share=0.5).sum() == 5


def test_no_share_means_no_part_is_dropped() -> None:
    mask = picture("#.#")
    assert without_islands(mask, smallest_share=0.0) is mask


def test_a_pinhole_is_filled_and_a_real_hole_stays() -> None:
    mask = np.ones((20, 20), dtype=bool)
    mask[3, 3] = False
    mask[8:14, 8:14] = False
    got = without_pinholes(mask, largest_share=0.02)
    assert got[3, 3]
    assert not got[8:14, 8:14].any()


def test_background_at_the_border_is_no_hole() -> None:
    mask = np.ones((10, 10), dtype=bool)
    mask[0, 5] = False
    assert not without_pinholes(mask, largest_share=0.5)[0, 5]


def _claim(x: int, probability: np.ndarray, y: int = 0) -> Claim:
    height, width = probability.shape
    return Claim(Grid(float(x), float(y), 1.0, 1.0, height, width), probability > 0.5, probability.astype(np.float32))


def _shares(claims: list[Claim], *, upright: bool = False) -> list[Share]:
    shares = shared_out(claims, upright=upright)
    assert all(share is not None for share in shares)
    return [share for share in shares if share is not None]


def test_a_pixel_goes_to_the_surer_of_objects_with_as_much_at_stake() -> None:
    first, second = _shares([_claim(0, np.array([[0.9, 0.6, 0.1]])), _claim(1, np.array([[0.7, 0.8]]))])
    np.testing.assert_array_equal(first.pixels, [[True, False, False]])  # 1 of 2 pixels is disputed for each
    np.testing.assert_array_equal(second.pixels, [[True, True]])


def test_a_disputed_pixels_probability_is_times_that_of_winning() -> None:
    first, second = _shares([_claim(0, np.array([[0.9, 0.6, 0.1]])), _claim(1, np.array([[0.7, 0.8]]))])
    odds = (0.7 / 0.3) / (0.6 / 0.4)  # of the second against the first, as both risk half of what they have
    assert first.probability[0] == pytest.approx([0.9, 0.6 / (1 + odds), 0.1])
    assert second.probability[0] == pytest.approx([0.7 * odds / (1 + odds), 0.8])


def test_of_equally_sure_objects_the_smaller_gets_the_pixel() -> None:
    large, small = _shares([_claim(0, np.full((2, 2), 0.8)), _claim(1, np.full((1, 1), 0.8))])
    assert large.pixels.sum() == 3
    assert small.pixels.all()


def test_an_object_inside_another_gets_its_pixels_though_it_is_less_sure() -> None:
    large, small = _shares([_claim(0, np.full((4, 4), 0.8)), _claim(1, np.full((2, 2), 0.6))])
    assert large.pixels.sum() == 12
    assert small.pixels.all()
    margin = np.log(0.6 / 0.4) - np.log(0.8 / 0.2) + STAKE * (1 - 4 / 16)
    assert small.probability[0, 0] == pytest.approx(0.6 / (1 + np.exp(-margin)))


def test_in_upright_images_what_begins_lower_stands_in_front() -> None:
    back, front = _claim(0, np.full((6, 4), 0.8), y=0), _claim(0, np.full((6, 4), 0.8), y=3)
    for claims, place in (([back, front], 1), ([front, back], 0)):
        assert _shares(claims, upright=True)[place].pixels.all()
        assert _shares(claims, upright=True)[1 - place].pixels.sum() == 12
    margin = UPRIGHT * np.tanh(3 / np.sqrt(24))
    assert _shares([back, front], upright=True)[1].probability[0, 0] == pytest.approx(0.8 / (1 + np.exp(-margin)))


def test_undisputed_objects_stay_as_they_are() -> None:
    claims = [_claim(0, np.full((2, 2), 0.8)), _claim(5, np.full((2, 2), 0.9)), _claim(1, np.full((1, 6), 0.4))]
    assert shared_out(claims, upright=True) == [None, None, None]


@pytest.mark.parametrize("upright", [True, False])
def test_no_pixel_has_two_owners_and_none_is_lost(upright: bool) -> None:
    random = np.random.default_rng(0)
    claims = []
    for _ in range(20):
        x, y, w, h = random.integers(0, 20), random.integers(0, 20), random.integers(1, 12), random.integers(1, 12)
        claims.append(_claim(int(x), random.random((h, w)).round(1), y=int(y)))
    owners, wanted = np.zeros((40, 40), dtype=int), np.zeros((40, 40), dtype=bool)
    for claim, share in zip(claims, shared_out(claims, upright=upright), strict=True):
        view = (
            slice(int(claim.window.y0), int(claim.window.y0) + claim.window.height),
            slice(int(claim.window.x0), int(claim.window.x0) + claim.window.width),
        )
        owners[view] += claim.pixels if share is None else share.pixels
        wanted[view] |= claim.pixels
        assert share is None or (share.probability <= claim.probability + 1e-6).all()
    np.testing.assert_array_equal(owners, wanted.astype(int))


def _held(x: int, *probability: float) -> Claim:
    row = np.array([probability], dtype=np.float32)
    return Claim(Grid(float(x), 0.0, 1.0, 1.0, 1, len(probability)), np.ones(row.shape, bool), row)


def test_a_pixel_is_yielded_to_a_class_that_is_more_probable_by_the_margin() -> None:
    car, rider = _held(0, 0.9, 0.4, 0.6, 0.2), _held(1, 0.9, 0.8, 0.1)
    of_car, of_rider = yielded([car, rider], [1, 2], margin=0.3)
    assert of_car is not None
    assert of_rider is None  # 0.1 less than 0.2 is within the margin, so that both keep the last pixel
    np.testing.assert_array_equal(of_car.pixels, [[True, False, True, True]])
    odds = (0.4 / 0.6) / (0.9 / 0.1)
    assert of_car.probability[0] == pytest.approx([1, odds / (1 + odds), 1, 1])


def test_of_one_class_nothing_is_yielded() -> None:
    assert yielded([_held(0, 0.1, 0.1), _held(0, 0.9, 0.2)], [1, 1], margin=0.3) == [None, None]


def test_who_would_have_nothing_left_yields_nothing() -> None:
    unseen, seen = _held(1, 0.1, 0.2), _held(0, 0.9, 0.9, 0.9)
    assert yielded([unseen, seen], [1, 2], margin=0.3) == [None, None]


def test_each_of_three_classes_yields_to_each_other() -> None:
    claims = [_held(0, 0.1, 0.7), _held(0, 0.55, 0.55), _held(0, 0.9, 0.7)]
    first, second, third = yielded(claims, [1, 2, 3], margin=0.3)
    assert first is not None
    assert second is not None
    assert third is None
    for share in (first, second):
        np.testing.assert_array_equal(share.pixels, [[False, True]])
