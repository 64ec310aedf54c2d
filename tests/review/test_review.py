"""A review without a browser: the session, the server's doors, and what `fuse` and `calibrate` make of answers."""

import http.client
import json
import shlex
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from pseudolabel import rle
from pseudolabel.cli.main import main
from pseudolabel.errors import InputError, MachineError, QualityGateError
from pseudolabel.fusion.score_model import default_score_model, load_score_model
from pseudolabel.pipelines.api import Run
from pseudolabel.pipelines.options.review import ReviewConfig
from pseudolabel.pipelines.review.reviewed import waiting_answers
from pseudolabel.pipelines.review.server import serve
from pseudolabel.pipelines.review.session import ConflictError, Session
from pseudolabel.pipelines.review.view import counts_of
from pseudolabel.pipelines.run.commit import read_part
from pseudolabel.pipelines.tools.review import format_review
from pseudolabel.pipelines.tools.reviewed_truth import PASSED_IOU, reviewed_pairs
from pseudolabel.pipelines.verify import verify_run
from pseudolabel.reviews import Answer, AnswerFile, Shown, read_answers
from pseudolabel.students.config import LabelConfig
from pseudolabel.students.labels import labels_from_coco
from tests.review.drawn_run import SIZE_HW, disc, place

Row = dict[str, Any]


def session_of(run: Run, **options: Any) -> Session:
    return Session(run.paths, ReviewConfig(**options))


def say(session: Session, number: int, verdict: str = "accept", **more: Any) -> None:
    seen = session.scene(number)["seen"]
    session.answer(
        {"id": number, "verdict": verdict, "choice": 0, "seen": seen, "seconds": 1, "key": f"{number}"} | more
    )


def pseudo(run: Run) -> dict[int, Row]:
    parts = sorted(run.paths.table("pseudo").glob("part-*.parquet"))
    return {row["annotation_id"]: row for part in parts for row in read_part(part).to_pylist()}


def choice_of(session: Session, number: int, source: str) -> int:
    return [one["origin"] for one in session.scene(number)["choices"]].index(source)


# --- the session ----------------------------------------------------------------------------------------------------


def test_the_budget_ends_the_queue_and_a_new_session_goes_on_where_the_last_one_stopped(run: Run) -> None:
    first = session_of(run, budget=5)
    seen = []
    for _ in range(3):
        seen.append(first.next())
        say(first, seen[-1])
    first.file.close()
    second = session_of(run, budget=5)
    while (number := second.next()) is not None:
        seen.append(number)
        say(second, number, "box_only")
    assert len(seen) == len(set(seen)) == 5
    assert second.state()["done"] == 5
    assert second.bought()["new"] == 2


def test_an_object_is_answered_once_however_many_pages_show_it(run: Run) -> None:
    session = session_of(run)
    say(session, 1)
    say(session, 1)  # the same page, as the reply was lost
    with pytest.raises(ConflictError):
        say(session, 1, "reject", key="another page")
    assert len(session.file.answers) == 1


def test_an_object_that_somebody_else_answered_is_not_asked_again(run: Run) -> None:
    other = session_of(run, reviewer="anna")
    number = other.next()
    say(other, number)
    mine = session_of(run, reviewer="ben")
    assert mine.next() != number
    with pytest.raises(ConflictError):
        say(mine, number)


def test_undo_brings_the_last_object_back(run: Run) -> None:
    session = session_of(run)
    say(session, 4)
    say(session, 9, "skip")
    assert session.undo("a") == 9
    assert session.undo("b") == 4
    assert session.undo("c") is None
    say(session, 4, "reject", key="new")
    assert session.state()["counts"] == {"reject": 1}


def test_a_skipped_object_uses_up_no_budget_and_is_not_shown_again(run: Run) -> None:
    session = session_of(run, budget=1)
    number = session.next()
    say(session, number, "skip")
    assert session.next() not in (number, None)


def test_every_sources_candidates_are_there_to_choose_from(run: Run) -> None:
    scene = session_of(run).scene(8)
    origins = {one["origin"] for one in scene["choices"]}
    assert scene["choices"][0]["origin"] == "fused"
    assert "poor" in origins


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param({"verdict": "maybe"}, id="verdict"),
        pytest.param({"choice": 99}, id="choice"),
        pytest.param({"choice": "0"}, id="choice-text"),
        pytest.param({"edit": [1]}, id="edit-too-short"),
        pytest.param({"edit": "all"}, id="edit-text"),
        pytest.param({"seconds": float("nan")}, id="nan"),
        pytest.param({"seconds": None}, id="no-seconds"),
        pytest.param({"category_id": 7}, id="class"),
        pytest.param({"id": 4000}, id="object"),
    ],
)
def test_what_is_no_answer_is_not_written_down(run: Run, wrong: Row) -> None:
    session = session_of(run)
    with pytest.raises(InputError):
        say(session, 1, **({"seen": session.scene(1)["seen"]} | wrong)) if "id" not in wrong else session.answer(wrong)
    assert session.file.path.read_bytes() == b""


def test_an_answer_about_another_mask_than_is_there_now_is_refused(run: Run) -> None:
    session = session_of(run)
    with pytest.raises(ConflictError):
        say(session, 1, seen="0000")


def test_a_run_without_pseudo_labels_says_what_to_type(run: Run) -> None:
    for part in run.paths.table("pseudo").glob("part-*"):
        part.unlink()
    result = CliRunner().invoke(main, ["review", str(run.paths.root)])
    assert isinstance(result.exception, InputError)
    assert "pseudolabel fuse" in str(result.exception)


# --- what becomes of answers ----------------------------------------------------------------------------------------


def test_fuse_takes_answers_as_the_last_word_without_being_asked_twice(run: Run) -> None:
    before = pseudo(run)
    session = session_of(run)
    say(session, 1)
    say(session, 2, choice=choice_of(session, 2, "poor"))
    say(session, 3, "box_only")
    say(session, 4, "reject")
    say(session, 5, category_id=2)
    say(session, 6, "wrong_class")
    session.file.close()
    run.step("fuse", refine="none", engine="inline")
    after = pseudo(run)
    assert [after[n]["decision"] for n in range(1, 8)] == [
        "keep",
        "keep",
        "box_only",
        "ignore",
        "keep",
        "ignore",
        "keep",
    ]
    assert [after[n]["score"] for n in range(1, 7)] == [1, 1, 0, 0, 1, 0]
    assert {after[n]["decision_reason"] for n in range(1, 7)} == {"reviewed"}
    assert after[1]["segmentation"] == before[1]["segmentation"]
    assert after[2]["area"] < 0.5 * before[2]["area"]
    assert (after[5]["category_id"], before[5]["category_id"]) == (2, 1)
    assert after[3]["area"] == pytest.approx(40 * 40, abs=90)  # its whole box
    assert {number: after[number] for number in range(7, 61)} == {number: before[number] for number in range(7, 61)}
    assert verify_run(run.paths) == []


def test_an_answer_that_is_taken_back_leaves_the_mask_of_fuse(run: Run) -> None:
    before = pseudo(run)
    session = session_of(run)
    say(session, 1, "reject")
    run.step("fuse", refine="none", engine="inline")
    session.undo("z")
    run.step("fuse", refine="none", engine="inline")
    assert pseudo(run) == before


def test_only_the_shard_of_an_answer_is_made_again(run: Run) -> None:
    session = session_of(run)
    say(session, 1)
    run.step("fuse", refine="none", engine="inline")
    say(session, 2)
    run.step("fuse", refine="none", engine="inline")
    assert run.summaries[-1]["attempted"] == 1


def test_answers_wait_until_fuse_has_taken_them_in(run: Run) -> None:
    session = session_of(run)
    assert waiting_answers(run.paths).total() == 0
    for number, verdict in ((1, "accept"), (2, "reject"), (7, "skip")):
        say(session, number, verdict)
    assert waiting_answers(run.paths).total() == 2
    run.step("fuse", refine="none", engine="inline")
    assert waiting_answers(run.paths).total() == 0
    session.undo("z")  # the answer on 2, which stands before the skipped one in what counts
    session.undo("y")
    assert waiting_answers(run.paths).total() == 1


def test_an_answer_about_no_object_of_the_run_waits_for_nothing(run: Run) -> None:
    file = AnswerFile(run.paths.reviews / "me.jsonl")
    file.append(Answer(77_777, "a.png", "reject", "2026-01-01T00:00:00Z", "me"))
    file.close()
    assert waiting_answers(run.paths).total() == 0


def test_status_and_a_dry_run_of_fuse_tell_of_answers_that_wait_and_change_nothing(run: Run) -> None:
    root = str(run.paths.root)
    say(session_of(run), 1)
    say_nothing = ["fuse", root, "--refine", "none", "--dry-run"]
    before = sorted(run.paths.root.rglob("*"))
    told = CliRunner().invoke(main, say_nothing).output
    assert "1 shards stale" in told
    assert ", 1 answers of reviews wait; " in told
    assert sorted(run.paths.root.rglob("*")) == before
    assert "1 answers of reviews wait:  pseudolabel fuse" in CliRunner().invoke(main, ["status", root]).output
    assert json.loads(CliRunner().invoke(main, ["status", root, "--json"]).output)["waiting_answers"] == 1
    run.step("fuse", refine="none", engine="inline")
    assert "fuse: 2 shards done\n" in CliRunner().invoke(main, say_nothing).output


def test_an_answer_keeps_what_was_shown(run: Run) -> None:
    before = pseudo(run)[1]
    say(session_of(run), 1)
    (answer,) = read_answers(run.paths.reviews / "me.jsonl").answers
    assert answer.shown == Shown(before["segmentation"], pytest.approx(before["score"]), before["decision"])


def test_other_options_of_fuse_still_ask_for_overwrite(run: Run) -> None:
    say(session_of(run), 1)
    result = CliRunner().invoke(main, ["fuse", str(run.paths.root), "--refine", "none", "--keep-score", "0.3"])
    assert "--overwrite" in str(result.exception)
    assert "keep_score" in str(result.exception)


def test_a_drawn_mask_comes_through_pixel_by_pixel_and_trains_with_full_weight(run: Run) -> None:
    session = session_of(run)
    scene = session.scene(7)
    x, y, radius = place(7)
    wanted = disc((x, y), radius) & (np.arange(SIZE_HW[0])[:, None] < y)
    window = session._scene(7).window
    cells = wanted[window.y0 : window.y0 + window.height, window.x0 : window.x0 + window.width]
    say(session, 7, edit=counts_of(cells))
    assert (scene["rows"], scene["columns"]) == cells.shape
    run.step("fuse", refine="none", engine="inline")
    assert np.array_equal(rle.decode(pseudo(run)[7]["segmentation"]), wanted)
    labels = labels_from_coco(run.paths.table("pseudo") / "instances.json", LabelConfig())
    own = [one for image in labels.images for one in image.objects if one.mask == rle.encode(wanted)]
    assert [(one.role, one.weight) for one in own] == [("mask", 1.0)]


def test_an_empty_drawing_is_no_mask(run: Run) -> None:
    session = session_of(run)
    scene = session.scene(7)
    with pytest.raises(InputError, match="box only"):
        say(session, 7, edit=[scene["rows"] * scene["columns"]])


def test_calibrate_learns_from_what_review_left(run: Run) -> None:
    session = session_of(run)
    for number in range(1, 61):
        say(session, number, choice=choice_of(session, number, "poor" if number % 3 == 0 else "fused"))
    before = run.calibrate(output=run.paths.root / "before.json")
    run.step("fuse", refine="none", engine="inline")
    after = run.calibrate(output=run.paths.root / "after.json")
    assert (before["n"], before["reviewed"]) == (60, 60)
    names = ("spearman_before", "ece_before", "risk_coverage_before")
    assert [after[name] for name in names] == [before[name] for name in names]  # of the masks as fuse makes them
    assert before["ece_before"] > 0.1  # a third of the masks were taken from a source with a third of the disc


def test_an_accepted_mask_is_not_taken_for_exact_and_the_order_of_scores_stays(run: Run) -> None:
    session = session_of(run)
    for number in range(1, 61):
        say(session, number, choice=choice_of(session, number, "poor" if number % 3 == 0 else "fused"))
    learned = {row["annotation_id"]: iou for row, iou in reviewed_pairs(run.paths)}
    assert learned[1] == PASSED_IOU
    assert learned[3] < 0.5
    path = Path(run.calibrate()["calibration"])
    rows = list(pseudo(run).values())
    before, after = (model.expected_iou(rows) for model in (default_score_model(), load_score_model(path)))
    assert np.array_equal(np.argsort(before, kind="stable"), np.argsort(after, kind="stable"))
    assert np.mean(after) < np.mean(before)


def test_calibrate_without_answers_and_truth_says_what_it_needs(run: Run) -> None:
    with pytest.raises(InputError, match="pseudolabel review"):
        run.calibrate()


@pytest.mark.parametrize(
    ("answers", "options", "error"),
    [
        pytest.param(29, {}, InputError, id="too few answers"),
        pytest.param(60, {"target_precision": 1.0, "at_iou": 0.99}, QualityGateError, id="no score is good enough"),
    ],
)
def test_a_calibration_that_is_refused_is_not_written(
    run: Run, answers: int, options: Row, error: type[Exception]
) -> None:
    session = session_of(run)
    for number in range(1, answers + 1):
        say(session, number)
    earlier = run.paths.root / "calibration.json"
    earlier.write_text("an earlier one")
    with pytest.raises(error):
        run.calibrate(**options)
    assert earlier.read_text() == "an earlier one"


def test_what_calibrate_says_to_type_next_works_as_it_stands(run: Run) -> None:
    content = json.loads((run.paths.table("pseudo") / "instances.json").read_text())
    for row in content["annotations"]:  # discs of half the radius: every score promises too much
        x, y, radius = place(row["id"])
        row["segmentation"] = rle.encode(disc((x, y), radius / 2))
    truth = run.paths.root / "audited.json"
    truth.write_text(json.dumps(content))
    program, *typed = shlex.split(run.calibrate(ground_truth=truth)["next"])
    assert program == "pseudolabel"
    result = CliRunner().invoke(main, [*typed, "--engine", "inline"])
    assert result.exit_code == 0, result.output
    assert all(row["calibrated_iou"] is not None for row in pseudo(run).values())


def test_masks_corrected_elsewhere_are_taken_in_once_and_only_where_they_differ(run: Run) -> None:
    content = json.loads((run.paths.table("pseudo") / "instances.json").read_text())
    x, y, radius = place(9)
    wanted = disc((x, y), radius / 2)
    for row in content["annotations"]:
        row["id"] += 5000  # as a program that numbers anew
        if row["id"] == 5009:
            row["segmentation"] = rle.encode(wanted)
            row["bbox"] = [x - radius / 2, y - radius / 2, radius, radius]
    path = run.paths.root / "corrected.json"
    path.write_text(json.dumps(content))
    assert run.review(import_file=path)["taken_in"] == 0  # by overlap, half a disc is not its box
    for row in content["annotations"]:
        row["id"] -= 5000
    path.write_text(json.dumps(content))
    taken = run.review(import_file=path, reviewer="team")
    assert (taken["taken_in"], taken["unchanged"], taken["of_no_object"]) == (1, 59, 0)
    assert "of 60 masks, matched by annotation id, 1 are corrections and taken in, 59 are" in format_review(taken)
    assert taken["next"].startswith("pseudolabel fuse ")
    again = run.review(import_file=path, reviewer="team")
    assert (again["taken_in"], again["known"], again["unchanged"]) == (0, 1, 59)
    run.step("fuse", refine="none", engine="inline")
    assert np.array_equal(rle.decode(pseudo(run)[9]["segmentation"]), wanted)


def test_an_import_that_takes_in_nothing_says_why_and_what_to_type(run: Run) -> None:
    content = json.loads((run.paths.table("pseudo") / "instances.json").read_text())
    content["annotations"][0]["segmentation"] = rle.encode(np.zeros(SIZE_HW, dtype=bool))
    path = run.paths.root / "as exported.json"
    path.write_text(json.dumps(content))
    taken = run.review(import_file=path, reviewer="team")
    assert (taken["taken_in"], taken["unchanged"], taken["empty"]) == (0, 59, 1)
    assert "0 are corrections and taken in, 59 are as they were, 1 are empty" in format_review(taken)
    assert "calibrate" not in taken["next"]
    typed = shlex.split(taken["next"].partition("then  ")[2])
    assert typed == ["pseudolabel", "review", str(run.paths.root), "--reviewer", "team", "--import-file", str(path)]


def test_a_review_without_an_answer_says_how_it_goes_on(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pseudolabel.pipelines.tools.review.serve", lambda *_: None)
    told = run.review(reviewer="anna")["next"]
    assert told == f"pseudolabel review {run.paths.typed} --reviewer anna  goes on where this ended"


def test_the_end_says_what_the_minutes_bought(run: Run) -> None:
    session = session_of(run, reviewer="anna")
    say(session, 1, seconds=30)
    say(session, 2, choice=choice_of(session, 2, "poor"), seconds=60)
    say(session, 3, "reject", seconds=30)
    text = format_review(session.bought())
    assert "3 answers in 2.0 min: 1 accepted as they were, 1 by poor, 1 no object" in text


def test_a_mask_that_was_taken_back_bought_nothing(run: Run) -> None:
    session = session_of(run)
    say(session, 1)
    say(session, 2, choice=choice_of(session, 2, "poor"))
    session.undo("u")
    bought = session.bought()
    assert (bought["answers"], bought["masks"], bought["mean_iou_before"]) == (1, 1, 1.0)


# --- the server's doors ---------------------------------------------------------------------------------------------


@pytest.fixture
def address(run: Run) -> Iterator[tuple[int, str, Session]]:
    """Port, token and session of a server that is up."""
    session, told, up = session_of(run), [], threading.Event()

    def ready(text: str) -> None:
        told.append(text)
        up.set()

    thread = threading.Thread(target=serve, args=(session, 0, ready), daemon=True)
    thread.start()
    assert up.wait(20)
    port, token = told[0].removeprefix("http://127.0.0.1:").strip("/").split("/")
    yield int(port), token, session
    ask(int(port), f"/{token}/finish", {})
    thread.join(20)
    assert not thread.is_alive()


def ask(port: int, path: str, body: Any = None, **headers: str) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body; headers as the page has them unless said."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    sent = {"Host": f"127.0.0.1:{port}"}
    if body is not None:
        sent |= {"Origin": f"http://127.0.0.1:{port}", "Content-Type": "application/json"}
    sent |= {name.replace("_", "-"): value for name, value in headers.items()}
    data = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    connection.request("GET" if body is None else "POST", path, data, {k: v for k, v in sent.items() if v})
    reply = connection.getresponse()
    return reply.status, dict(reply.getheaders()), reply.read()


def test_the_page_is_served_to_whoever_has_the_token(address: tuple[int, str, Session]) -> None:
    port, token, _ = address
    status, headers, body = ask(port, f"/{token}/")
    assert status == 200
    assert b"<canvas" in body
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert "unsafe" not in headers["Content-Security-Policy"]


@pytest.mark.parametrize("path", ["/", "/state", "/x/state", "//state", "/%00/state"])
def test_without_the_token_nothing_is_told(address: tuple[int, str, Session], path: str) -> None:
    assert ask(address[0], path)[0] == 403


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1", "[::1]"])
def test_another_host_is_refused_though_the_token_is_right(address: tuple[int, str, Session], host: str) -> None:
    assert ask(address[0], f"/{address[1]}/state", Host=host)[0] == 403


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        pytest.param({"Origin": "http://evil.example"}, 403, id="other-origin"),
        pytest.param({"Origin": "null"}, 403, id="null-origin"),
        pytest.param({"Origin": ""}, 403, id="no-origin"),
        pytest.param({"Content_Type": "text/plain"}, 403, id="a-form"),
        pytest.param({"Content_Length": "99999999999"}, 413, id="too-long"),
    ],
)
def test_a_post_of_another_page_changes_nothing(
    address: tuple[int, str, Session], headers: dict[str, str], status: int
) -> None:
    port, token, session = address
    said = {"id": 1, "verdict": "reject", "choice": 0, "seen": session.scene(1)["seen"], "seconds": 1, "key": "a"}
    assert ask(port, f"/{token}/answer", said, **headers)[0] == status
    assert session.file.answers == []


def test_bad_requests_get_a_reason_and_leave_the_server_up(address: tuple[int, str, Session]) -> None:
    port, token, _ = address
    assert ask(port, f"/{token}/answer", b"{")[0] == 400
    assert ask(port, f"/{token}/answer", b"[]")[0] == 400
    assert ask(port, f"/{token}/object?id=x")[0] == 400
    assert ask(port, f"/{token}/object?id=4000")[0] == 400
    assert ask(port, f"/{token}/../../etc/passwd")[0] == 404
    assert ask(port, f"/{token}/state")[0] == 200


def test_an_image_is_sent_as_the_window_around_its_object(address: tuple[int, str, Session]) -> None:
    import io

    from PIL import Image

    port, token, session = address
    status, headers, body = ask(port, f"/{token}/image?id=1")
    scene = session.scene(1)
    assert (status, headers["Content-Type"]) == (200, "image/jpeg")
    assert Image.open(io.BytesIO(body)).size == (scene["columns"], scene["rows"])


def test_an_answer_is_on_the_disk_when_the_reply_comes(address: tuple[int, str, Session]) -> None:
    port, token, session = address
    said = {"id": 1, "verdict": "reject", "choice": 0, "seen": session.scene(1)["seen"], "seconds": 1, "key": "a"}
    assert ask(port, f"/{token}/answer", said)[0] == 200
    assert [one.verdict for one in read_answers(session.file.path).answers] == ["reject"]
    assert ask(port, f"/{token}/answer", said | {"key": "b"})[0] == 409


def test_a_port_that_is_taken_is_named(address: tuple[int, str, Session], run: Run, tmp_path: Path) -> None:
    with pytest.raises(MachineError, match=f"port {address[0]}"):
        serve(address[2], address[0], lambda _: None)
