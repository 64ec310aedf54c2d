"""What an audit tells of boxes, by boxes alone and by a label map, against cases made by hand."""

import numpy as np
import pytest

from pseudolabel.audit.evidence import Evidence, missing, of_other_class, too_loose, too_tight
from pseudolabel.audit.issues import GivenObject, doubled, ill_placed, odd_sizes
from pseudolabel.audit.pictures import issue_picture

CLASSES = ("background", "cat", "dog")


def given(number: int, box: tuple[float, float, float, float], category: int = 1) -> GivenObject:
    return GivenObject(number, category, CLASSES[category], box)


def evidence(*regions: tuple[int, int, int, int, int], confidence: int = 255) -> Evidence:
    """Rectangles (class, left, top, right, bottom) in cells, of 2 x 2 px, on 100 x 100 cells."""
    labels = np.zeros((100, 100), dtype=np.uint8)
    for index, left, top, right, bottom in regions:
        labels[top:bottom, left:right] = index
    return Evidence(labels, np.full_like(labels, confidence), {1: 1, 2: 2}, CLASSES, (200, 200))


def test_a_box_that_is_there_twice_is_told_once() -> None:
    twice = [given(1, (0, 0, 100, 100)), given(2, (0, 0, 100, 96)), given(3, (50, 0, 150, 100))]
    (issue,) = doubled(twice)
    assert (issue.kind, issue.annotation_id, issue.other_id) == ("doubled", 2, 1)
    assert issue.score == pytest.approx(0.96)


def test_two_classes_in_one_box_are_named() -> None:
    (issue,) = doubled([given(1, (0, 0, 10, 10)), given(2, (0, 0, 10, 10), 2)])
    assert "cat and dog" in issue.suggestion


def test_boxes_without_room_or_beside_the_image_are_told() -> None:
    boxes = [
        given(1, (5, 5, 7, 90)),
        given(2, (150, 0, 250, 100)),
        given(3, (0, 0, 200, 200)),
        given(4, (9, 9, 50, 50)),
    ]
    found = {issue.annotation_id: issue for issue in ill_placed(boxes, (200, 200))}
    assert {number: issue.kind for number, issue in found.items()} == {1: "tiny", 2: "outside", 3: "odd_size"}
    assert found[2].score == pytest.approx(0.5)
    assert found[2].box_xyxy == (150, 0, 200, 100)


def test_one_box_unlike_the_rest_of_its_class_is_told_and_a_class_of_few_is_left_alone() -> None:
    alike = [given(number, (0, 0, 20 + number % 5, 20 + number % 3)) for number in range(30)]
    rows = [*alike, given(99, (0, 0, 180, 2)), given(100, (0, 0, 150, 1), 2)]
    assert [issue.annotation_id for issue in odd_sizes(rows, [(200, 200)] * len(rows))] == [99]


def test_a_box_beyond_which_its_object_goes_on_is_tight_and_the_suggestion_takes_it_in() -> None:
    seen = evidence((1, 20, 20, 60, 40))  # in px: 40..120 x 40..80
    (issue,) = too_tight(given(1, (40, 40, 90, 80)), [], seen)
    assert (issue.kind, issue.box_xyxy) == ("tight", (40, 40, 120, 80))
    assert list(too_tight(given(1, (40, 40, 120, 80)), [], seen)) == []


def test_a_box_that_ends_just_before_its_image_is_not_tight() -> None:
    seen = evidence((1, 60, 20, 100, 60))  # to the right edge; the box ends 4 of its 76 px before that
    assert list(too_tight(given(1, (120, 40, 196, 120)), [], seen)) == []
    assert [issue.kind for issue in too_tight(given(1, (120, 40, 180, 120)), [], seen)] == ["tight"]


def test_a_neighbour_of_the_same_class_is_no_reason_to_widen_a_box() -> None:
    seen = evidence((1, 20, 20, 60, 40))
    assert list(too_tight(given(1, (40, 40, 80, 80)), [given(2, (80, 40, 120, 80))], seen)) == []


def test_an_unsure_segmenter_says_nothing() -> None:
    seen = evidence((1, 20, 20, 60, 40), (2, 70, 70, 95, 95), confidence=100)
    assert list(too_tight(given(1, (40, 40, 80, 80)), [], seen)) == []
    assert list(missing([], seen)) == []


def test_a_class_that_is_seen_away_from_three_sides_of_its_box_makes_it_loose() -> None:
    box = (40, 40, 120, 120)  # cells 20 to 60
    (issue,) = too_loose(given(1, box), evidence((1, 28, 28, 60, 52)))
    assert (issue.kind, issue.box_xyxy) == ("loose", (56, 56, 120, 104))
    assert issue.score == pytest.approx(2 * 8 / 40)  # the least of the three gaps


@pytest.mark.parametrize(
    ("seen", "category"),
    [
        pytest.param((1, 28, 28, 60, 60), 1, id="two sides alone"),
        pytest.param((1, 24, 24, 56, 56), 1, id="narrow gaps"),
        pytest.param((1, 35, 35, 45, 45), 1, id="hardly anything of the class"),
        pytest.param((2, 28, 28, 52, 52), 1, id="another class"),
    ],
)
def test_a_box_is_not_called_loose_for_less(seen: tuple[int, int, int, int, int], category: int) -> None:
    assert list(too_loose(given(1, (40, 40, 120, 120), category), evidence(seen))) == []


@pytest.mark.parametrize(("side_px", "weight"), [(300, 1), (150, 1), (75, 0.5), (51, 0.34), (49, 0)])
def test_a_label_map_counts_the_less_the_smaller_the_box(side_px: int, weight: float) -> None:
    labels = np.zeros((1000, 1000), dtype=np.uint8)
    labels[:side_px, :side_px] = 2
    seen = Evidence(labels, np.full_like(labels, 255), {1: 1, 2: 2}, CLASSES, (1000, 1000))
    found = [issue.score for issue in of_other_class(given(1, (0, 0, side_px, side_px)), [], seen)]
    assert found == pytest.approx([weight] if weight else [])


def test_another_class_in_the_middle_is_told_unless_another_box_explains_it() -> None:
    seen = evidence((2, 20, 20, 50, 50))
    one = given(1, (40, 40, 100, 100))
    (issue,) = of_other_class(one, [], seen)
    assert (issue.kind, issue.suggestion) == ("wrong_class", "the segmenter sees dog")
    assert list(of_other_class(given(1, (40, 40, 100, 100), 2), [], seen)) == []
    assert list(of_other_class(one, [given(2, (30, 30, 110, 110), 2)], seen)) == []


def test_a_table_that_a_cup_stands_on_is_not_the_cups_class() -> None:
    cup = given(1, (80, 80, 120, 120))
    assert list(of_other_class(cup, [], evidence((2, 10, 10, 90, 90)))) == []
    assert [issue.kind for issue in of_other_class(cup, [], evidence((2, 38, 38, 62, 62)))] == ["wrong_class"]


def test_a_region_in_no_box_is_missing() -> None:
    seen = evidence((1, 10, 10, 30, 30), (2, 60, 60, 90, 80), (1, 96, 2, 98, 4))
    (issue,) = missing([given(1, (20, 20, 60, 60))], seen)
    assert (issue.kind, issue.annotation_id, issue.box_xyxy) == ("missing", None, (120, 120, 180, 160))
    assert issue.score == pytest.approx(1.0)


def test_a_picture_of_an_issue_is_small_however_large_the_image() -> None:
    (issue,) = doubled([given(1, (10, 10, 3900, 2900)), given(2, (10, 10, 3900, 2900))])
    picture = issue_picture(np.zeros((3000, 4000, 3), dtype=np.uint8), [(10, 10, 3900, 2900)], issue)
    assert max(picture.size) == 640
