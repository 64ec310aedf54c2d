"""Which samples a step sees."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pseudolabel.training.order import BatchOrder, StepBatches, step_loader


@given(st.integers(1, 60), st.integers(1, 9), st.integers(1, 4), st.integers(0, 5))
def test_every_sample_is_seen_in_every_epoch_by_some_process(samples: int, batch: int, world: int, epoch: int) -> None:
    orders = [BatchOrder(samples, batch, seed=3, world_size=world, rank=rank) for rank in range(world)]
    steps = range(epoch * orders[0].steps_per_epoch, (epoch + 1) * orders[0].steps_per_epoch)
    seen = Counter(index for order in orders for step in steps for index in order.batch(step))
    assert set(seen) == set(range(samples))
    assert sum(seen.values()) == orders[0].steps_per_epoch * batch * world


def test_epochs_and_seeds_shuffle_differently_and_repeatably() -> None:
    order = BatchOrder(50, 50, seed=1)
    assert order.batch(0) == BatchOrder(50, 50, seed=1).batch(0)
    assert order.batch(0) != order.batch(1)
    assert order.batch(0) != BatchOrder(50, 50, seed=2).batch(0)


def test_a_loader_that_starts_late_gives_the_same_batches() -> None:
    batches = StepBatches(BatchOrder(10, 3), tuple)
    assert list(step_loader(batches, 0, 9))[4:] == list(step_loader(batches, 4, 9))


def test_an_order_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one sample"):
        BatchOrder(0, 4)
