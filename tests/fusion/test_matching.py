"""Which candidates speak for which object; every expected choice is worked out by hand."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from pseudolabel.candidates import Candidate, GivenBox
from pseudolabel.condinst.ranking import box_quality_ranking
from pseudolabel.fusion.matching import adaptive_k, best_boxes
from pseudolabel.fusion.objects import FusionSettings, served_by
from pseudolabel.masks import Grid, SoftMask

MASK = SoftMask(Grid(0, 0, 1, 1, 1, 1), np.full((1, 1), 255, dtype=np.uint8))
TARGETS = [GivenBox(7, 1, (0.0, 0.0, 10.0, 10.0)), GivenBox(8, 2, (0.0, 0.0, 10.0, 10.0))]


def bound(annotation_id: int, box_iou: float | None, source: str = "a", height: float = 10.0) -> Candidate:
    return Candidate(source, annotation_id, 1, (0.0, 0.0, 10.0, height), 0.9, box_iou, MASK)


def free(height: float, category_id: int | None = None, source: str = "a") -> Candidate:
    """Its box has an IoU of height / 10 with the targets'."""
    return Candidate(source, None, category_id, (0.0, 0.0, 10.0, height), 0.9, None, MASK)


def columns(candidates: list[Candidate], k: int = 10, min_iou: float = 0.5) -> list[list[int]]:
    return [served.columns for served in best_boxes(TARGETS, candidates, k, min_iou=min_iou)]


def test_a_bound_candidate_serves_its_own_object_alone() -> None:
    assert columns([bound(8, 0.9), bound(7, 0.8), bound(9, 0.9)]) == [[1], [0]]


def test_what_a_candidate_says_of_its_iou_goes_before_its_box() -> None:
    assert columns([bound(7, 0.4), bound(7, None, height=6), bound(7, None, height=4)]) == [[1], []]
    assert best_boxes(TARGETS, [bound(7, None, height=6)], 1, min_iou=0.5)[0].iou.tolist() == pytest.approx([0.6])


def test_a_free_candidate_serves_every_object_of_its_class() -> None:
    assert columns([free(9, 1), free(8, 2), free(7, None)]) == [[0, 2], [1, 2]]


def test_the_best_boxes_of_each_source_come_first_and_equal_ones_keep_their_order() -> None:
    candidates = [free(6, source="b"), free(9), free(8, source="b"), free(9), free(7)]
    assert columns(candidates, k=2) == [[1, 3, 2, 0]] * 2
    assert columns(candidates, k=1) == [[1, 2]] * 2


def test_an_object_may_have_a_number_of_its_own() -> None:
    served = best_boxes(TARGETS, [free(9), free(8), free(7)], np.array([1.0, 2.0]), min_iou=0.5)
    assert [one.columns for one in served] == [[0], [0, 1]]


def test_a_floor_of_zero_leaves_no_candidate_of_the_class_out() -> None:
    far = replace(free(9), box_xyxy=(50.0, 50.0, 60.0, 60.0))
    assert columns([far], min_iou=0.0) == [[0], [0]]
    assert columns([far], min_iou=0.1) == [[], []]


def test_nothing_to_choose_from_is_no_error() -> None:
    assert columns([]) == [[], []]
    assert best_boxes([], [free(9)], 3, min_iou=0.5) == []


def test_fuse_and_training_choose_alike() -> None:
    random = np.random.default_rng(0)
    candidates = [free(float(height)) for height in random.uniform(1, 10, 200).round(1)]
    ious = torch.tensor([[c.box_xyxy[3] / 10 for c in candidates]])
    ranking = box_quality_ranking(ious, 20)
    assert columns(candidates, k=20)[0] == ranking.index[0].tolist()


def test_the_number_of_candidates_is_the_same_of_arrays_and_tensors() -> None:
    areas = np.random.default_rng(0).uniform(1, 20000, 100).astype(np.float32)
    assert adaptive_k(areas).tolist() == adaptive_k(torch.from_numpy(areas)).tolist()


def test_an_assignment_gives_each_object_one_candidate_and_none_twice() -> None:
    settings = FusionSettings(ranking="bpma")
    served = served_by(TARGETS, [free(9), free(4), replace(free(8), category_id=2)], settings)
    assert [one.columns for one in served] == [[0], [2]]
    assert [one.columns for one in served_by(TARGETS, [], settings)] == [[], []]
