"""The file of answers: nothing is lost, nothing counts twice, and what a kill leaves is no answer."""

import json
from pathlib import Path

import pytest

from pseudolabel.errors import InputError, MachineError
from pseudolabel.reviews import Answer, AnswerFile, mask_digest, read_answers, settled

MASK = {"size": [2, 3], "counts": "132"}


def answer(number: int = 1, verdict: str = "box_only", at: str = "2026-01-01T00:00:00", **more: object) -> Answer:
    return Answer(number, "a.png", verdict, at, str(more.pop("reviewer", "me")), **more)  # type: ignore[arg-type]


def test_answers_come_back_in_their_order(tmp_path: Path) -> None:
    file = AnswerFile(tmp_path / "reviews" / "me.jsonl")
    said = [answer(1), answer(2, "accept", mask=MASK, origin="drawn", category_id=4, seconds=2.5), answer(1, "undo")]
    for one in said:
        file.append(one)
    file.close()
    assert read_answers(file.path).answers == said


def test_a_last_line_that_was_cut_off_is_no_answer_and_the_next_one_stands_on_a_line_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "me.jsonl"
    path.write_bytes(answer(1).to_line() + answer(2).to_line()[:-20])
    assert read_answers(path).torn_bytes == len(answer(2).to_line()) - 20
    file = AnswerFile(path)
    assert (file.torn_bytes, [one.annotation_id for one in file.answers]) == (len(answer(2).to_line()) - 20, [1])
    file.append(answer(3))
    file.close()
    found = read_answers(path)
    assert ([one.annotation_id for one in found.answers], found.torn_bytes) == ([1, 3], 0)


def test_an_answer_cut_off_at_its_very_end_does_not_count_either(tmp_path: Path) -> None:
    path = tmp_path / "me.jsonl"
    path.write_bytes(answer(1).to_line()[:-1])
    assert read_answers(path).answers == []


@pytest.mark.parametrize(
    "line",
    [
        pytest.param(b"{}", id="empty"),
        pytest.param(b"[1]", id="list"),
        pytest.param(b"\xff", id="no-text"),
        pytest.param(answer(1).to_line().replace(b'"box_only"', b'"accept"').strip(), id="accept-without-mask"),
        pytest.param(answer(1).to_line().replace(b'"box_only"', b'"maybe"').strip(), id="unknown-verdict"),
        pytest.param(answer(1).to_line().replace(b'"annotation_id": 1', b'"annotation_id": "1"').strip(), id="text-id"),
    ],
)
def test_a_bad_line_is_named_by_its_number(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "me.jsonl"
    path.write_bytes(answer(1).to_line() + line + b"\n")
    with pytest.raises(InputError, match=r"me\.jsonl, line 2"):
        read_answers(path)


def test_two_programs_do_not_write_the_same_reviewers_answers(tmp_path: Path) -> None:
    file = AnswerFile(tmp_path / "me.jsonl")
    with pytest.raises(MachineError, match="another review"):
        AnswerFile(tmp_path / "me.jsonl")
    file.close()
    AnswerFile(tmp_path / "me.jsonl").close()


def test_undo_takes_back_the_last_answer_of_its_reviewer_alone() -> None:
    said = [answer(1, "reject"), answer(1, reviewer="you"), answer(1, "undo")]
    assert [one.reviewer for one in settled(said).values()] == ["you"]
    assert settled([*said, answer(1, "undo", reviewer="you")]) == {}


def test_the_latest_of_two_reviewers_has_the_last_word_and_a_skip_has_none() -> None:
    early = answer(1, "reject", at="2026-01-01T00:00:01", reviewer="you")
    late = answer(1, at="2026-01-01T00:00:02")
    skip = answer(1, "skip", at="2026-01-01T00:00:03", reviewer="she")
    assert settled([late, early, skip])[1] == late


def test_masks_of_other_pixels_have_other_digests() -> None:
    assert mask_digest(MASK) != mask_digest({"size": [3, 2], "counts": "132"})  # type: ignore[arg-type]
    assert json.loads(answer(1).to_line())["version"] == 1
