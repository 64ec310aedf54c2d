import numpy as np

from pseudolabel.fusion.exclusive import Claim, exclusive_pixels
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


def test_a_pixel_goes_to_the_surer_object() -> None:
    window = Grid(0, 0, 1.0, 1.0, 1, 3)
    sure = Claim(window, np.array([[True, True, False]]), np.float32([[0.9, 0.6, 0.1]]))
    doubtful = Claim(Grid(1.0, 0, 1.0, 1.0, 1, 2), np.array([[True, True]]), np.float32([[0.7, 0.8]]))
    first, second = exclusive_pixels([sure, doubtful], (1, 3))
    np.testing.assert_array_equal(first, [[True, False, False]])
    np.testing.assert_array_equal(second, [[True, True]])


def test_of_equally_sure_objects_the_smaller_gets_the_pixel() -> None:
    large = Claim(Grid(0, 0, 1.0, 1.0, 2, 2), np.ones((2, 2), dtype=bool), np.full((2, 2), 0.8, np.float32))
    small = Claim(Grid(1.0, 1.0, 1.0, 1.0, 1, 1), np.ones((1, 1), dtype=bool), np.full((1, 1), 0.8, np.float32))
    first, second = exclusive_pixels([large, small], (2, 2))
    assert first.sum() == 3
    assert second.all()


def test_no_pixel_has_two_owners_and_none_is_lost() -> None:
    random = np.random.default_rng(0)
    claims = []
    for _ in range(20):
        x, y, w, h = random.integers(0, 20), random.integers(0, 20), random.integers(1, 12), random.integers(1, 12)
        probability = random.random((h, w)).astype(np.float32)
        claims.append(Claim(Grid(float(x), float(y), 1.0, 1.0, int(h), int(w)), probability > 0.5, probability))
    owners, wanted = np.zeros((40, 40), dtype=int), np.zeros((40, 40), dtype=bool)
    for claim, pixels in zip(claims, exclusive_pixels(claims, (40, 40)), strict=True):
        view = (
            slice(int(claim.window.y0), int(claim.window.y0) + claim.window.height),
            slice(int(claim.window.x0), int(claim.window.x0) + claim.window.width),
        )
        owners[view] += pixels
        wanted[view] |= claim.pixels
    np.testing.assert_array_equal(owners, wanted.astype(int))
