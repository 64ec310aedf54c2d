import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pseudolabel.condinst.ranking import box_quality_ranking, bpma, keep_after_nms
from pseudolabel.fusion.matching import adaptive_k


@pytest.mark.parametrize(
    ("side_px", "expected"),
    [
        pytest.param(8, 2, id="below the small side"),
        pytest.param(32, 2, id="small side"),
        pytest.param(64, 6, id="in the middle"),
        pytest.param(96, 10, id="large side"),
        pytest.param(500, 10, id="above the large side"),
    ],
)
def test_adaptive_k_follows_the_closed_form(side_px: int, expected: int) -> None:
    assert adaptive_k(torch.tensor([float(side_px) ** 2])).tolist() == [expected]


def test_adaptive_k_rounds_to_the_nearest_integer() -> None:
    sides = torch.tensor([35.9, 36.1])  # a step of 8 px per candidate, so 2.49 and 2.51
    assert adaptive_k(sides**2).tolist() == [2, 3]


def test_ranking_takes_the_best_boxes_first_and_respects_k() -> None:
    ranking = box_quality_ranking(torch.tensor([[0.6, 0.9, 0.55, 0.8]]), 3)
    assert ranking.index.tolist() == [[1, 3, 0]]
    assert ranking.valid.all()


def test_ranking_leaves_out_boxes_below_the_floor() -> None:
    ranking = box_quality_ranking(torch.tensor([[0.6, 0.9, 0.4, 0.8]]), 4)
    assert ranking.index[ranking.valid].tolist() == [1, 3, 0]


def test_ranking_gives_every_object_its_own_k() -> None:
    box_iou = torch.full((2, 5), 0.7)
    ranking = box_quality_ranking(box_iou, torch.tensor([1, 4]))
    assert ranking.valid.sum(1).tolist() == [1, 4]
    assert ranking.index[1].tolist() == [0, 1, 2, 3]  # equal IoUs keep their order


def test_ranking_lets_one_candidate_serve_two_objects() -> None:
    ranking = box_quality_ranking(torch.tensor([[0.9, 0.1], [0.8, 0.2]]), 1)
    assert ranking.index.tolist() == [[0], [0]]


def test_ranking_of_no_candidates_has_no_columns() -> None:
    assert box_quality_ranking(torch.zeros(3, 0), 10).valid.shape == (3, 0)


@given(st.lists(st.floats(0, 1, width=32), min_size=1, max_size=30), st.integers(1, 12))
def test_ranking_never_leaves_out_a_better_box_than_it_takes(ious: list[float], k: int) -> None:
    box_iou = torch.tensor([ious])
    ranking = box_quality_ranking(box_iou, k, min_iou=0.3)
    taken = ranking.index[ranking.valid].tolist()
    left = [iou for i, iou in enumerate(ious) if i not in taken and iou >= 0.3]
    assert len(taken) == len(set(taken)) == min(k, sum(iou >= 0.3 for iou in box_iou[0].tolist()))
    assert not left or max(left) <= min(box_iou[0, i].item() for i in taken)


def test_bpma_does_not_give_one_object_away_twice() -> None:
    # both detections overlap object 0 best; the second has to take object 1, also when the first is number 0
    box_iou = torch.tensor([[0.9, 0.8], [0.1, 0.6]])
    assert bpma(box_iou, torch.tensor([0.9, 0.5])).tolist() == [0, 1]


def test_bpma_lets_the_higher_rank_choose_first() -> None:
    box_iou = torch.tensor([[0.6, 0.9]])
    assert bpma(box_iou, torch.tensor([0.9, 0.5])).tolist() == [0]


def test_bpma_leaves_an_object_without_overlap_unassigned() -> None:
    assigned = bpma(torch.tensor([[0.49], [0.5]]), torch.tensor([0.9]))
    assert assigned.tolist() == [-1, 0]


def test_nms_keeps_the_better_of_two_overlapping_boxes_of_a_class() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 9], [0, 0, 10, 10]])
    kept = keep_after_nms(boxes, torch.tensor([0.8, 0.9, 0.7]), torch.tensor([1, 1, 2]))
    assert kept.tolist() == [1, 2]
