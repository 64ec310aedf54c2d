import numpy as np
import pytest

from pseudolabel.candidates import Candidate
from pseudolabel.fusion.decisions import Limits
from pseudolabel.fusion.groups import group_candidates, label_groups, mask_iou
from pseudolabel.fusion.labels import LabelSettings
from pseudolabel.fusion.objects import FusionSettings
from pseudolabel.fusion.refine import Refinement
from pseudolabel.masks import Grid, SoftMask

SETTINGS = LabelSettings(
    FusionSettings(per_source=None),
    Limits(0.5, 0.3),
    Refinement("none"),
    smallest_part=0.0,
    largest_pinhole=0.0,
    exclusive="none",
    class_margin=None,
    score_of_mask=None,
)


def full(box_xyxy: tuple[int, int, int, int], *, score: float, category: int | None, source: str = "a") -> Candidate:
    x0, y0, x1, y1 = box_xyxy
    cells = np.full((y1 - y0, x1 - x0), 255, dtype=np.uint8)
    mask = SoftMask(Grid(float(x0), float(y0), 1.0, 1.0, y1 - y0, x1 - x0), cells)
    return Candidate(source, None, category, tuple(map(float, box_xyxy)), score, None, mask)  # type: ignore[arg-type]


def test_mask_iou_across_different_grids() -> None:
    fine = full((0, 0, 8, 8), score=1, category=1).mask
    coarse = SoftMask(Grid(4.0, 0.0, 4.0, 4.0, 2, 2), np.full((2, 2), 255, np.uint8))  # covers (4, 0) to (12, 8)
    assert mask_iou(fine, coarse) == pytest.approx(32 / 96)


def test_masks_of_one_object_join_whatever_their_source() -> None:
    same = [full((0, 0, 20, 20), score=0.9, category=1), full((0, 0, 20, 16), score=0.8, category=1, source="b")]
    apart = full((40, 0, 60, 20), score=0.7, category=1)
    groups = group_candidates([*same, apart])
    assert [len(group.members) for group in groups] == [2, 1]
    np.testing.assert_allclose(groups[0].box_xyxy, [0, 0, 20, 18])


def test_other_classes_need_more_overlap_to_be_one_object() -> None:
    rider = full((0, 0, 20, 20), score=0.9, category=1)
    assert len(group_candidates([rider, full((0, 0, 20, 12), score=0.8, category=2)])) == 2
    merged = group_candidates([rider, full((0, 0, 20, 18), score=0.8, category=2)])
    assert [group.category_id for group in merged] == [1]


def test_a_part_of_an_object_of_its_class_is_no_object_and_one_of_another_class_is() -> None:
    whole = full((0, 0, 40, 40), score=0.9, category=1)
    part, tie = full((5, 5, 15, 15), score=0.8, category=1), full((20, 5, 30, 15), score=0.7, category=2)
    rows = label_groups([whole, part, tie], (50, 50), SETTINGS)
    assert [(row["category_id"], row["area"]) for row in rows] == [(1, 1600), (2, 100)]
    assert all(row["annotation_id"] is None for row in rows)


def test_candidates_without_a_class_support_but_found_nothing() -> None:
    named, nameless = full((0, 0, 20, 20), score=0.8, category=5), full((0, 0, 20, 20), score=0.9, category=None)
    lonely = full((30, 30, 40, 40), score=0.9, category=None)
    (row,) = label_groups([named, nameless, lonely], (50, 50), SETTINGS)
    assert (row["category_id"], row["candidates_used"]) == (5, 2)
