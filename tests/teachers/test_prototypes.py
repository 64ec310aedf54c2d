"""Prototypes: their balanced assignment, how they move, and what they say of a picture."""

import math

import pytest
import torch

from pseudolabel.teachers.condinst import prototypes as prototypes_module
from pseudolabel.teachers.condinst.prototypes import PrototypeRule, Prototypes, sinkhorn


def looped_plan(similarity: list[list[float]], epsilon: float, iterations: int) -> list[list[float]]:
    """Sinkhorn and Knopp's scaling vectors, number by number."""
    n, count = len(similarity), len(similarity[0])
    kernel = [[math.exp(value / epsilon) for value in row] for row in similarity]
    u, v = [1.0] * n, [1.0] * count
    for _ in range(iterations):
        v = [1 / count / sum(u[i] * kernel[i][j] for i in range(n)) for j in range(count)]
        u = [1 / n / sum(kernel[i][j] * v[j] for j in range(count)) for i in range(n)]
    return [[u[i] * kernel[i][j] * v[j] for j in range(count)] for i in range(n)]


@pytest.mark.parametrize("iterations", [1, 3, 10])
def test_the_plan_is_that_of_the_scaling_vectors(iterations):
    similarity = torch.rand(7, 3, generator=torch.Generator().manual_seed(0)) * 2 - 1
    expected = torch.tensor(looped_plan(similarity.tolist(), 0.25, iterations), dtype=torch.float64)
    found = sinkhorn(similarity, epsilon=0.25, iterations=iterations)
    assert torch.allclose(found.double(), expected, rtol=1e-5, atol=1e-8)


def test_after_many_iterations_every_cell_and_every_centre_has_its_mass():
    similarity = torch.rand(12, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    plan = sinkhorn(similarity, epsilon=0.1, iterations=200)
    assert torch.allclose(plan.sum(dim=1), torch.full((12,), 1 / 12, dtype=torch.float64))
    assert torch.allclose(plan.sum(dim=0), torch.full((4,), 1 / 4, dtype=torch.float64))


def test_a_plan_by_hand():
    # K = [[4, 1], [1, 1]]: columns 5 and 2 become 1/2 each, rows then 0.4 + 0.25 and 0.1 + 0.25 become 1/2 each
    plan = sinkhorn(torch.tensor([[math.log(4.0), 0.0], [0.0, 0.0]]), epsilon=1.0, iterations=1)
    expected = torch.tensor([[0.4 / 0.65, 0.25 / 0.65], [0.1 / 0.35, 0.25 / 0.35]]) / 2
    assert torch.allclose(plan, expected)


def test_no_similarity_overflows_the_plan():
    plan = sinkhorn(torch.tensor([[1.0, -1.0], [1.0, -1.0], [-1.0, 1.0]]), epsilon=1e-3, iterations=3)
    assert plan.isfinite().all()


def pair(**changes) -> Prototypes:
    """Two prototypes of each of two classes, those of the first along the axes."""
    prototypes = Prototypes(2, 2, PrototypeRule(per_class=2, **changes))
    prototypes.centres[0] = torch.eye(2)
    return prototypes


def test_prototypes_move_towards_the_means_of_what_they_get_and_stay_of_unit_length():
    prototypes = pair(momentum=0.75, ramp=1.0)
    prototypes.updates[0] = 100  # the momentum is reached
    other = prototypes.centres[1].clone()
    prototypes.update(torch.tensor([[0.8, 0.6], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]]), torch.zeros(4).long())
    # 3/4 (1, 0) + 1/4 (0.9, 0.3) = (0.975, 0.075), whose length is sqrt(0.95625)
    expected = torch.tensor([[0.975, 0.075], [0.0, 1.0]]) / torch.tensor([[math.sqrt(0.95625)], [1.0]])
    assert torch.allclose(prototypes.centres[0], expected)
    assert torch.equal(prototypes.centres[1], other)  # nothing of the other class was there
    assert prototypes.updates.tolist() == [[101, 101], [0, 0]]
    assert prototypes.known.tolist() == [True, False]


def test_a_class_seen_for_the_first_time_starts_as_the_means():
    prototypes = pair()
    prototypes.update(torch.tensor([[0.6, 0.8], [0.8, -0.6]]), torch.zeros(2).long())
    found = prototypes.centres[0]
    assert torch.allclose(found, torch.tensor([[0.8, -0.6], [0.6, 0.8]]))


def test_cells_that_are_all_alike_are_shared_among_the_prototypes():
    prototypes = Prototypes(1, 2, PrototypeRule(per_class=2))
    prototypes.centres[0] = torch.tensor([[1.0, 0.0], [0.9, math.sqrt(0.19)]])
    cells = torch.nn.functional.normalize(torch.tensor([[1.0, 0.0], [1.0, 0.02], [1.0, 0.04], [1.0, 0.06]]), dim=1)
    prototypes.update(cells, torch.zeros(4).long())  # all are nearest to the first
    assert torch.allclose(prototypes.centres[0, 0], torch.nn.functional.normalize(cells[:2].mean(dim=0), dim=0))
    assert torch.allclose(prototypes.centres[0, 1], torch.nn.functional.normalize(cells[2:].mean(dim=0), dim=0))


def test_the_means_are_those_of_the_cells_of_all_processes(monkeypatch):
    """Three processes: the first and the last see one cell of the first prototype, the other one of each."""
    cells = torch.nn.functional.normalize(torch.tensor([[1.0, 0.1], [1.0, 0.2], [1.0, 0.3], [0.1, 1.0]]), dim=1)
    brought = []
    monkeypatch.setattr(prototypes_module, "mean_of_all", lambda sums: brought.append(sums) or sums)
    for part in (cells[:1], cells[[1, 3]], cells[2:3]):
        pair().update(part, torch.zeros(len(part)).long())
    monkeypatch.setattr(prototypes_module, "mean_of_all", lambda sums: torch.stack(brought).mean(dim=0))
    prototypes = pair()
    prototypes.update(cells[:1], torch.zeros(1).long())
    expected = torch.nn.functional.normalize(torch.stack([cells[:3].mean(dim=0), cells[3]]), dim=1)
    assert torch.allclose(prototypes.centres[0], expected)


def test_half_precision_around_it_changes_nothing():
    cells = torch.nn.functional.normalize(torch.randn(3000, 2, generator=torch.Generator().manual_seed(0)), dim=1)
    found = []
    for enabled in (False, True):
        prototypes = pair()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            prototypes.update(cells, torch.zeros(3000).long())
            found.append((prototypes.centres[0], prototypes.nearest(cells.T)))
    assert torch.equal(found[0][0], found[1][0])
    assert torch.equal(found[0][1], found[1][1])


def test_without_a_cell_nothing_moves():
    prototypes = pair()
    before = prototypes.centres.clone()
    prototypes.update(torch.zeros(0, 2), torch.zeros(0).long())
    assert torch.equal(prototypes.centres, before)
    assert not prototypes.known.any()


def test_the_map_separates_a_picture_of_two_colours():
    """The left half one feature, the right half another; class 0 was seen on the left, class 1 on the right."""
    picture = torch.zeros(2, 4, 6)
    picture[0, :, :3], picture[1, :, 3:] = 1.0, 1.0
    prototypes = Prototypes(2, 2, PrototypeRule(per_class=3))
    cells, labels = picture.flatten(1).T, (torch.arange(24) % 6 >= 3).long()
    for _ in range(5):
        prototypes.update(cells, labels)
    near = prototypes.nearest(picture)
    assert near.shape == (2, 4, 6)
    assert (near[0] > near[1]).tolist() == [[True] * 3 + [False] * 3] * 4
    probability = (near / 0.1).sigmoid()
    assert (probability[0, :, :3] > 0.99).all()
    assert (probability[1, :, 3:] > 0.99).all()
    assert (probability[0, :, 3:] < 0.6).all()
