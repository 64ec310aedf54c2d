"""Equal ids are found wherever they stand, and the memory for them stays as it is."""

import tracemalloc
from tempfile import TemporaryFile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pseudolabel.errors import InputError
from pseudolabel.formats.unique_ids import UniqueIds

IDS = st.lists(st.integers(0, 2**63 - 1) | st.integers(0, 200), max_size=60)


@given(IDS)
def test_ids_pass_exactly_where_a_set_of_them_is_as_large(ids: list[int]) -> None:
    with TemporaryFile() as file:
        unique = UniqueIds("image", file)
        assert [unique.next(one) for one in ids] == ids
        if len(set(ids)) == len(ids):
            unique.check()
        else:
            with pytest.raises(InputError, match="image id"):
                unique.check()


def test_a_second_use_of_an_id_is_found_across_pieces_of_the_file() -> None:
    with TemporaryFile() as file:
        unique = UniqueIds("annotation", file)
        for number in range(600_000):
            unique.next(number)
        unique.check()
        unique.next(77)
        with pytest.raises(InputError, match="annotation id 77 occurs 2 times"):
            unique.check()
        assert unique.count == 600_001


def test_memory_does_not_grow_with_the_number_of_ids() -> None:
    peaks = []
    for count in (300_000, 900_000):
        tracemalloc.start()
        with TemporaryFile() as file:
            unique = UniqueIds("image", file)
            for number in range(count):
                unique.next(number * 7)
            unique.check()
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 6 << 20
    assert peaks[1] - peaks[0] < 1 << 20


def test_ids_are_made_where_no_row_brings_one_and_never_mixed() -> None:
    with TemporaryFile() as file:
        unique = UniqueIds("image", file)
        assert [unique.next(None) for _ in range(3)] == [1, 2, 3]
        unique.check()
        unique.next(9)
        with pytest.raises(InputError, match="3 images have no id and 1 have one: give all or none"):
            unique.check()
