"""Who is looked at first."""

from collections import Counter

from pseudolabel.pipelines.review.queue import DOUBTFUL, Queued, in_order


def objects(scores: list[float], classes: list[int] | None = None) -> list[Queued]:
    return [Queued(number, "a.png", 0, classes[number] if classes else 1, score) for number, score in enumerate(scores)]


def test_worst_begins_with_the_lowest_score() -> None:
    assert [one.score for one in in_order(objects([0.9, 0.2, 0.5]), order="worst")] == [0.2, 0.5, 0.9]


def test_of_equal_scores_a_rare_class_comes_before_the_tenth_of_a_common_one() -> None:
    ordered = in_order(objects([0.5] * 20 + [0.45], [1] * 20 + [2]), order="worst")
    assert {one.category_id for one in ordered[:2]} == {1, 2}


def test_sure_objects_come_last_whatever_is_drawn() -> None:
    scores = [0.3 + 0.005 * number for number in range(100)]
    first = in_order(objects(scores), seed=3)[: round(100 * DOUBTFUL)]
    assert max(one.score for one in first) < min(scores[round(100 * DOUBTFUL) :])


def test_low_scores_are_drawn_more_often() -> None:
    scores = [0.5] * 50 + [0.9] * 50
    low = sum(one.score == 0.5 for seed in range(40) for one in in_order(objects(scores), seed=seed)[:10])
    assert 300 < low < 360  # of 400: weights 0.5 to 0.1, of which all and as many again as can be are doubtful


def test_every_object_is_there_once_and_the_same_seed_gives_the_same_order() -> None:
    several = objects([0.1 * (number % 9) for number in range(50)], [number % 3 for number in range(50)])
    once, again = in_order(several, seed=1), in_order(several[::-1], seed=1)
    assert once == again
    assert Counter(once) == Counter(several)
    assert once != in_order(several, seed=2)


def test_an_empty_run_has_an_empty_queue() -> None:
    assert in_order([]) == []
