"""The moving average."""

import pytest
import torch
from torch import nn

from pseudolabel.training.ema import average_of, momentum_at, update_average


def test_momentum_starts_at_zero_and_reaches_its_limit():
    assert momentum_at(0) == 0
    assert momentum_at(10) == 0.5
    assert momentum_at(9990) == pytest.approx(0.999)
    assert momentum_at(10**6) == 0.999


def test_a_ramp_of_one_is_the_published_momentum():
    assert momentum_at(0, ramp=1) == 0
    assert momentum_at(1, ramp=1) == 0.5
    assert momentum_at(999, ramp=1) == pytest.approx(0.999)


def test_an_average_is_the_weighted_sum_and_is_not_trained():
    network = nn.Sequential(nn.Linear(1, 1), nn.BatchNorm1d(1))
    average = average_of(network)
    with torch.no_grad():
        network[0].weight.fill_(5.0)
        average[0].weight.fill_(1.0)
        network[1].running_mean.fill_(2.0)
    network[1].num_batches_tracked.fill_(7)
    update_average(average, network, 0.75)
    assert average[0].weight.item() == pytest.approx(0.75 * 1 + 0.25 * 5)
    assert average[1].running_mean.item() == pytest.approx(0.25 * 2)
    assert average[1].num_batches_tracked.item() == 7
    assert not any(one.requires_grad for one in average.parameters())


def test_buffers_stay_where_the_released_code_leaves_them():
    network = nn.BatchNorm1d(1)
    average = average_of(network)
    network.running_mean.fill_(2.0)
    update_average(average, network, 0.5, buffers="leave")
    assert average.running_mean.item() == 0
    update_average(average, network, 0.5, buffers="copy")
    assert average.running_mean.item() == 2


@pytest.mark.parametrize(
    ("step", "mal", "student"), [(0, 1 - 1 / 2, 0.0), (1, 1 - 1 / 3, 1 - 1 / 2), (700, 0.995, 0.995)]
)
def test_momentum_of_teacher_and_student_is_that_of_a_mean_with_and_without_the_beginning(step, mal, student):
    assert momentum_at(step + 1, 0.995, ramp=1) == mal
    assert momentum_at(step, 0.995, ramp=1) == student


def test_what_is_frozen_stays_as_it_is():
    network = nn.Linear(1, 1)
    average = average_of(network)
    before = average.weight.item()
    network.weight.requires_grad_(False).fill_(before + 1)
    update_average(average, network, 0.5)
    assert average.weight.item() == before
