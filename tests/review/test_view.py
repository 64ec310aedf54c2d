"""Windows of images: masks on their cells, and edits that touch what was edited alone."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pseudolabel.errors import InputError
from pseudolabel.masks import PixelMask
from pseudolabel.pipelines.review.view import MOST_CELLS, Window, cells_from, counts_of


@given(arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 9))))
def test_counts_tell_a_mask_whole(cells: np.ndarray) -> None:
    counts = counts_of(cells)
    assert sum(counts) == cells.size
    assert np.array_equal(cells_from(counts, *cells.shape), cells)


@pytest.mark.parametrize("counts", [[1, 2], [4, -1, 1], [1.0, 3], "4", [True, 3], None, [10**12]])
def test_counts_that_are_none_are_refused(counts: object) -> None:
    with pytest.raises(InputError):
        cells_from(counts, 2, 2)


def test_a_small_object_is_shown_pixel_by_pixel_with_its_surroundings() -> None:
    window = Window.around((100, 50, 120, 60), (400, 600))
    assert (window.x0, window.y0, window.width, window.height) == (84, 34, 52, 42)  # 16 px on every side
    assert (window.columns, window.rows) == (52, 42)


def test_a_window_ends_where_the_image_does() -> None:
    window = Window.around((0, 0, 590, 390), (400, 600))
    assert (window.x0, window.y0, window.width, window.height) == (0, 0, 600, 400)


def test_a_large_object_is_shown_on_cells_of_several_pixels() -> None:
    window = Window.around((0, 0, 8000, 6000), (6000, 8000))
    assert (window.columns, window.rows) == (MOST_CELLS, 768)


def test_an_edit_changes_the_pixels_of_its_cells_and_no_other() -> None:
    window = Window(10, 20, 40, 40, 10, 10)  # cells of 4 x 4 pixels
    pixels = np.zeros((50, 50), dtype=bool)
    pixels[13:30, 17:31] = True  # not along the cells' borders
    mask = PixelMask(5, 15, pixels)
    cells = window.cells_of(mask)
    assert not cells[9, 9]
    cells[9, 9] = True
    edited = window.edited(mask, cells)
    full = np.zeros((100, 100), dtype=bool)
    full[15:65, 5:55] = pixels
    full[56:60, 46:50] = True  # the last cell
    rows, columns = edited.pixels.shape
    found = np.zeros_like(full)
    found[edited.y0 : edited.y0 + rows, edited.x0 : edited.x0 + columns] = edited.pixels
    assert np.array_equal(found, full)


def test_an_unedited_mask_stays_as_it_is_also_outside_the_window() -> None:
    window = Window(2, 2, 4, 4, 4, 4)
    mask = PixelMask(0, 0, np.eye(9, dtype=bool))
    edited = window.edited(mask, window.cells_of(mask))
    assert (edited.x0, edited.y0) == (0, 0)
    assert np.array_equal(edited.pixels, mask.pixels)


def test_an_empty_mask_can_be_drawn_on() -> None:
    window = Window(2, 3, 4, 4, 4, 4)
    cells = np.zeros((4, 4), dtype=bool)
    cells[1, 2] = True
    edited = window.edited(PixelMask(0, 0, np.zeros((0, 0), dtype=bool)), cells)
    assert (edited.x0, edited.y0, edited.pixels.sum(), edited.pixels[1, 2]) == (2, 3, 1, True)
