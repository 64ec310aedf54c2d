"""`report`: what the page says, what it holds, and what it does in a browser."""

import json
import re
import socket
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import pseudolabel as pl
from pseudolabel import rle
from pseudolabel.cli.main import main
from pseudolabel.errors import IncompleteError, InputError
from pseudolabel.pipelines.look.bought import Bought
from pseudolabel.pipelines.look.facts import repeat_commands
from pseudolabel.pipelines.look.picture import draw_pictures
from pseudolabel.pipelines.look.report import format_written, write_report
from pseudolabel.pipelines.options.look import ReportConfig
from pseudolabel.pipelines.options.tools import PictureConfig
from pseudolabel.pipelines.planning.plan import read_plan
from pseudolabel.pipelines.run.commit import read_part
from pseudolabel.pipelines.run.paths import RunPaths
from pseudolabel.pipelines.run.stage_config import SavedConfig, save_config
from pseudolabel.pipelines.status import begun_tables
from pseudolabel.report.page import script_json
from pseudolabel.reviews import Answer, AnswerFile, Shown
from tests.look.browser import opened
from tests.look.made_runs import FIRST_ID, Made, MadeRun, make_run, many, write_labels
from tests.students.runs import labelled_run

HOSTILE_CLASS = "</script><script>alert(1)</script><img src=x onerror=alert(2)>"
HOSTILE_FILE = "a'\"><img src=x onerror=alert(3)>&amp;.png"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> MadeRun:
    images = {f"{place}.png": many(10, seed=place) for place in range(9)}
    images[HOSTILE_FILE] = [Made((10, 10, 30, 20), HOSTILE_CLASS, 0.2, "box_only", "low_score", 6, 0.1)]
    return make_run(tmp_path_factory.mktemp("report"), images)


@pytest.fixture(scope="module")
def page_file(made: MadeRun) -> Path:
    written = write_report(made.paths, ReportConfig(ground_truth=made.truth))
    assert written["objects"] == 91
    return Path(written["report"])


def data_of(path: Path) -> Any:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', path.read_text(), re.DOTALL)
    assert found
    return json.loads(found[1])["objects"]


class Addresses(HTMLParser):
    """Everything that a page could load."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [str(value) for name, value in attrs if name in ("src", "href", "action", "srcset", "data")]


def test_the_page_names_nothing_to_load(page_file: Path) -> None:
    parser = Addresses()
    parser.feed(page_file.read_text())
    assert parser.found
    assert all(address.startswith(("#", "data:")) for address in parser.found)


def test_json_in_a_page_cannot_end_its_element() -> None:
    hostile = {"name": "</script><!-- & \u2028"}
    text = str(script_json(hostile))
    assert not set("<>&\u2028") & set(text)
    assert json.loads(text) == hostile


def test_an_object_is_shown_with_every_mask_at_the_resolution_of_its_picture(page_file: Path) -> None:
    one = next(one for one in data_of(page_file) if one["cls"] == HOSTILE_CLASS)
    assert [layer["name"] for layer in one["layers"]] == ["fused", "colors", "semantic", "truth"]
    height, width = one["size"]  # the square around a box of 30 pixels is 38 wide; its upper end is cut by the image
    assert (height, width) == (38, 38)
    masks = {layer["name"]: rle.decode({"size": one["size"], "counts": layer["rle"]}) for layer in one["layers"]}
    x0, y0, x1, y1 = (round(value) for value in one["box"])
    assert (x1 - x0, y1 - y0) == (30, 20)
    box = np.zeros((height, width), bool)
    box[y0:y1, x0:x1] = True
    lower, shrunk = box.copy(), box.copy()
    lower[y0 : y0 + 10] = False
    shrunk[:, x1 - 6 : x1] = False
    assert np.array_equal(masks["truth"], box)
    assert np.array_equal(masks["semantic"], box)
    assert np.array_equal(masks["colors"], lower)
    assert np.array_equal(masks["fused"], shrunk)
    assert one["iou"] == pytest.approx(24 / 30)


def test_the_gallery_is_bounded_and_has_the_worst_the_disputed_and_all_classes(made: MadeRun, tmp_path: Path) -> None:
    everything = data_of(Path(write_report(made.paths, ReportConfig(out=tmp_path / "all.html"))["report"]))
    assert len(everything) == 91
    few = data_of(Path(write_report(made.paths, ReportConfig(out=tmp_path / "few.html", gallery=24))["report"]))
    assert len(few) == 24
    ids = {one["id"] for one in few}
    assert {one["id"] for one in sorted(everything, key=lambda one: one["score"])[:3]} <= ids
    assert {one["id"] for one in sorted(everything, key=lambda one: one["agreement"])[:3]} <= ids
    assert {one["cls"] for one in few} == {"disc", "star", "ring", HOSTILE_CLASS}
    assert data_of(Path(write_report(made.paths, ReportConfig(out=tmp_path / "none.html", gallery=0))["report"])) == []


def test_the_page_counts_what_the_run_holds(page_file: Path, made: MadeRun) -> None:
    text = page_file.read_text()
    decisions = [one["decision"] for one in data_of(page_file)]
    for name in ("keep", "review", "box_only"):
        assert re.search(rf'{name}</td><td class="n">{decisions.count(name)}</td>', text)
    assert ">usable boxes<" in text
    assert "images: 10" in text  # the bar's own words
    of_sources = re.findall(r'<td class="name">candidates/\w+</td><td class="n">(\d+)</td>', text)
    assert sum(map(int, of_sources)) == 182
    assert f"pseudolabel shard {made.paths.root} --images" in text


def test_a_run_that_is_not_through_says_so(tmp_path: Path) -> None:
    made = make_run(tmp_path, {f"{place}.png": many(3, seed=place) for place in range(6)}, shards=3)
    parts = [made.paths.part("pseudo", shard, 3) for shard in range(3)]
    next(part for part in parts if part.exists()).unlink()
    told = "1 of 3 shards have no pseudo labels yet, and their objects are not here: pseudolabel fuse"
    written = write_report(made.paths, ReportConfig())
    assert told in format_written(written)
    assert told in Path(written["report"]).read_text(encoding="utf-8")


def test_a_run_without_pseudo_labels_says_what_to_type(tmp_path: Path, made: MadeRun) -> None:
    with pytest.raises(InputError, match="plan"):
        write_report(RunPaths(tmp_path), ReportConfig())
    bare = make_run(tmp_path / "bare", {"a.png": [Made((5, 5, 20, 20))]}, shards=1)
    bare.paths.part("pseudo", 0, 1).unlink()
    with pytest.raises(InputError, match="pseudolabel fuse"):
        write_report(bare.paths, ReportConfig())


def test_a_run_without_boxes_has_no_truth_to_show_and_says_so(tmp_path: Path) -> None:
    run, truth = labelled_run(tmp_path, bare=True), tmp_path / "data" / "instances.json"
    for look, config in ((write_report, ReportConfig), (draw_pictures, PictureConfig)):
        with pytest.raises(InputError, match=r"made without boxes.* pseudolabel evaluate .* --ground-truth"):
            look(run, config(ground_truth=truth))


def test_an_image_that_is_gone_is_named_and_all_others_are_shown(tmp_path: Path) -> None:
    made = make_run(tmp_path, {"a.png": [Made((5, 5, 20, 20))], "b.png": [Made((9, 9, 20, 20))]}, shards=1)
    (tmp_path / "images" / "a.png").unlink()
    written = write_report(made.paths, ReportConfig())
    path = Path(written["report"])
    assert "1 of them with pictures; images that could not be opened now: 1, such as a.png" in format_written(written)
    assert [one["file"] for one in data_of(path)] == ["b.png"]
    assert "Could not be opened now: a.png" in path.read_text()


def test_an_image_of_which_a_box_was_refused_is_shown(tmp_path: Path) -> None:
    made = make_run(tmp_path, {"a.png": [Made((5, 5, 20, 20))], "b.png": [Made((9, 9, 20, 20))]}, shards=1)
    content = json.loads((tmp_path / "boxes.json").read_text())
    content["annotations"].append({"id": 9, "image_id": 1, "category_id": 1, "bbox": [1, 1, 0, 5], "iscrowd": 0})
    (tmp_path / "boxes.json").write_text(json.dumps(content))
    made.paths = RunPaths(tmp_path / "other")
    with pytest.raises(IncompleteError, match="1 of 3 objects were rejected"):
        pl.Run.create(made.paths.root, images=tmp_path / "images", boxes=tmp_path / "boxes.json", shards=1)
    write_labels(made, {"a.png": [Made((5, 5, 20, 20))], "b.png": [Made((9, 9, 20, 20))]}, shards=1)
    written = write_report(made.paths, ReportConfig())
    assert (written["objects"], written["shown"], written["unreadable"]) == (2, 2, [])


def test_the_command_says_where_the_page_is(made: MadeRun, tmp_path: Path) -> None:
    out = tmp_path / "page.html"
    result = CliRunner().invoke(main, ["report", str(made.paths.root), "--out", str(out), "--gallery", "5"])
    assert result.exit_code == 0, result.output
    page, following = result.output.splitlines()
    assert page == f"{out}: 91 objects, 5 of them with pictures"
    assert following.startswith("next: open the page")


def test_every_table_of_one_stage_is_told_of_by_the_line_that_made_it(made: MadeRun) -> None:
    for name, per_box in (("teacher", 5), ("second", 7)):
        config = {"name": name, "per_box": per_box}
        save_config(made.paths, SavedConfig("infer-teacher", f"candidates/{name}", "cpu", config, {}))
    lines = repeat_commands(made.paths, read_plan(made.paths))
    assert [line for line in lines if "infer-teacher" in line] == [
        f"pseudolabel infer-teacher {made.paths.typed} --name second --per-box 7",
        f"pseudolabel infer-teacher {made.paths.typed} --per-box 5",
    ]
    assert {"candidates/teacher", "candidates/second"} <= set(begun_tables(made.paths))


def test_the_page_stops_at_its_bytes_and_says_what_is_left_out(
    made: MadeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pseudolabel.pipelines.look.gallery._MOST_BYTES", 20_000)
    path = Path(write_report(made.paths, ReportConfig(out=tmp_path / "small.html"))["report"])
    objects = data_of(path)
    spent = sum(len(one["img"]) + sum(len(layer["rle"]) for layer in one["layers"]) for one in objects)
    assert 15_000 < spent <= 20_000
    assert f"{91 - len(objects)} more were left out" in path.read_text()


def test_reviews_are_told_of_with_the_minutes_that_they_took(tmp_path: Path) -> None:
    images = {"a.png": [Made((5, 5, 20, 20)), Made((30, 10, 20, 20))]}
    made = make_run(tmp_path, images, shards=1)
    mask = rle.encode(np.ones((60, 80), bool))
    told = {"image_key": "a.png", "at": "2026-01-01T00:00:00Z", "reviewer": "eve", "seconds": 90.0}
    file = AnswerFile(made.paths.reviews / "eve.jsonl")
    file.append(Answer(FIRST_ID, verdict="accept", mask=mask, origin="colors", **told))
    file.append(Answer(FIRST_ID + 1, verdict="box_only", **told))
    file.close()
    text = " ".join(Path(write_report(made.paths, ReportConfig())["report"]).read_text().split())
    assert "2 objects were looked at by eve in 3 minutes: 1 accept, 1 box_only" in text
    assert "Accepted masks are 1 colors." in text
    assert "Not in these masks yet: 2 of them" in text
    assert "What the review bought" not in text


def test_what_a_review_bought_is_told_before_and_after(tmp_path: Path) -> None:
    """Of three kept masks of a score of 0.9 one is drawn whole, one is no object, one is not looked at."""
    half = Made((0, 0, 20, 20), shrink=10)
    images = {"a.png": [half, Made((30, 10, 20, 20)), Made((50, 30, 20, 20))]}
    made = make_run(tmp_path, images, shards=1)
    told = {"image_key": "a.png", "at": "2026-01-01T00:00:00Z", "reviewer": "eve", "seconds": 30.0}
    rows = {row["annotation_id"]: row for row in read_part(made.paths.part("pseudo", 0, 1)).to_pylist()}
    whole = np.zeros((60, 80), bool)
    whole[:20, :20] = True
    shown = {number: Shown(rows[number]["segmentation"], 0.9, "keep") for number in (FIRST_ID, FIRST_ID + 1)}
    answers = {
        FIRST_ID: Answer(
            FIRST_ID, verdict="accept", mask=rle.encode(whole), origin="drawn", shown=shown[FIRST_ID], **told
        ),
        FIRST_ID + 1: Answer(FIRST_ID + 1, verdict="reject", shown=shown[FIRST_ID + 1], **told),
    }
    bought = Bought(answers)
    reviewed = {"decision_reason": "reviewed"}
    new = {"segmentation": rle.encode(whole), "score": 1.0, "decision": "keep", **reviewed}
    bought.add(rows[FIRST_ID] | new, rle.encode(whole))
    bought.add(rows[FIRST_ID + 1] | {"score": 0.0, "decision": "ignore", **reviewed}, None)
    bought.add(rows[FIRST_ID + 2], None)
    facts = bought.facts()
    assert facts is not None
    assert [(one["before"], one["after"], one["change"]) for one in facts["figures"]] == [
        ("3", "2", "-1"),
        ("0.900", "0.950", "+0.050"),
        ("0.500", "1.000", "+0.500"),
    ]
    drawn, rejected = sorted(facts["kinds"], key=lambda one: one["name"])
    assert (drawn["name"], drawn["changed"], drawn["same"]) == ("drawn by hand", 1, 0.5)
    assert (drawn["iou_before"], drawn["iou_after"], drawn["minutes"]) == (0.5, 1.0, 0.5)
    assert (rejected["name"], rejected["kept_before"], rejected["kept_after"]) == ("no object", 1, 0)
    assert rejected["iou_before"] is None


# --- in a browser ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_runs_without_a_complaint_and_asks_the_network_for_nothing(page_file: Path, scheme: str) -> None:
    with opened(page_file, scheme=scheme) as (page, told):
        page.locator(".card").first.scroll_into_view_if_needed()
        page.locator(".card canvas[data-drawn]").first.wait_for()
        assert page.locator(".card").count() == 60
        page.get_by_role("button", name="Show more").click()
        assert page.locator(".card").count() == 91
        back = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (back == "rgb(255, 255, 255)") == (scheme == "light")
        assert told == []


def test_a_narrow_page_has_nothing_beside_it_and_no_broken_word(page_file: Path) -> None:
    with opened(page_file, width=390) as (page, told):
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        page.locator(".card").first.scroll_into_view_if_needed()
        page.locator(".card").first.click()
        lines = page.locator("#viewer-facts th").evaluate_all(
            "all => all.map((one) => { const range = document.createRange(); range.selectNodeContents(one);"
            " return range.getClientRects().length; })"
        )
        assert set(lines) == {1}
        assert "RUN" not in page.locator("#viewer-repeat").inner_text()
        assert told == []


def test_hostile_names_are_shown_as_they_are(page_file: Path) -> None:
    with opened(page_file) as (page, told):
        page.locator("#search").fill("onerror")
        assert page.locator(".card").count() == 1
        assert HOSTILE_CLASS in page.locator(".card").inner_text()
        page.locator(".card").click()
        assert HOSTILE_FILE in page.locator("#viewer-facts").inner_text()
        assert page.locator("#classes td", has_text=HOSTILE_CLASS).count() == 1
        assert page.locator("img").count() == 0
        assert told == []


def test_nothing_that_a_name_could_smuggle_in_may_run_or_load(page_file: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, opened(page_file) as (page, told):
        server.settimeout(1)
        page.evaluate(
            """(port) => { const made = document.createElement('div');
            made.innerHTML = `<img src="http://127.0.0.1:${port}/a.png"><b onclick="window.ran=1">x</b>`;
            document.body.append(made); made.querySelector('b').click();
            const script = document.createElement('script'); script.textContent = 'window.ran = 2';
            document.body.append(script);
            fetch(`http://127.0.0.1:${port}/b`).catch(() => {}); }""",
            server.getsockname()[1],
        )
        with pytest.raises(TimeoutError):
            server.accept()
        assert page.evaluate("window.ran") is None
        assert [line for line in told if "Content Security Policy" in line]


def test_filters_and_orders_leave_what_they_say(page_file: Path) -> None:
    objects = data_of(page_file)
    with opened(page_file) as (page, told):
        page.locator("#class").select_option("star")
        stars = sorted((one for one in objects if one["cls"] == "star"), key=lambda one: one["iou"])
        assert page.locator("#count").inner_text() == f"{len(stars)} of 91 objects"
        titles = [card.get_attribute("title") for card in page.locator(".card").all()]
        assert titles[0] == f"{stars[0]['file']} {stars[0]['id']}"
        page.locator("#filters button[type=reset]").click()
        page.wait_for_function("document.getElementById('count').textContent.startsWith('91')")
        page.locator("input[name=decision][value=keep]").uncheck()
        others = [one for one in objects if one["decision"] != "keep"]
        assert page.locator("#count").inner_text() == f"{len(others)} of 91 objects"
        page.locator("#reason").select_option("doubtful_score")
        doubtful = [one for one in others if "doubtful_score" in one["reasons"]]
        assert page.locator("#count").inner_text() == f"{len(doubtful)} of 91 objects"
        page.locator("#most").fill("0.6")
        low = [one for one in doubtful if one["score"] <= 0.6]
        assert page.locator("#count").inner_text() == f"{len(low)} of 91 objects"
        page.locator("#order").select_option("disagreement")
        first = min(low, key=lambda one: one["agreement"])
        assert page.locator(".card").first.get_attribute("title") == f"{first['file']} {first['id']}"
        page.locator("#search").fill("no such file")
        assert page.locator(".card").count() == 0
        assert told == []


def test_an_object_is_looked_through_by_keys_alone(page_file: Path) -> None:
    with opened(page_file) as (page, told):
        page.locator(".card").first.scroll_into_view_if_needed()
        page.locator(".card canvas[data-drawn]").first.wait_for()
        page.locator(".card").first.focus()
        page.keyboard.press("Enter")
        canvas, title = page.locator("#canvas"), page.locator("#viewer-title")
        label = canvas.get_attribute("aria-label")
        assert label.endswith("with the mask fused")
        pictures = set()
        for key, name in [("1", "the mask fused"), ("2", "the mask colors"), ("4", "the mask truth"), ("0", "no mask")]:
            page.keyboard.press(key)
            page.wait_for_timeout(100)
            assert canvas.get_attribute("aria-label").endswith(f"with {name}")
            pictures.add(canvas.evaluate("one => one.toDataURL()"))
        assert len(pictures) == 4
        page.keyboard.press("ArrowDown")
        assert canvas.get_attribute("aria-label").endswith("with the mask fused")
        page.keyboard.press("9")  # there is none
        assert canvas.get_attribute("aria-label").endswith("with the mask fused")
        page.keyboard.press("b")
        assert not page.locator("#show-box").is_checked()
        page.keyboard.press("ArrowRight")
        assert title.inner_text().endswith("2 of 91")
        page.keyboard.press("ArrowLeft")
        page.keyboard.press("ArrowLeft")
        assert title.inner_text().endswith("91 of 91")
        page.keyboard.press("Escape")
        assert not page.locator("#viewer").is_visible()
        assert page.evaluate("document.activeElement.className") == "card"
        assert told == []


def test_the_mask_is_painted_where_it_is(page_file: Path) -> None:
    """The true mask of the hostile object is its box, and its colour inside differs from the picture's."""
    one = next(one for one in data_of(page_file) if one["id"] == FIRST_ID + 90)
    with opened(page_file) as (page, _):
        page.locator("#search").fill(str(FIRST_ID + 90))
        page.locator(".card").click()
        page.keyboard.press("b")

        def colours(layer: str) -> list[list[int]]:
            page.keyboard.press(layer)
            page.wait_for_timeout(150)
            scale = 768 / max(one["size"])
            points = [(one["box"][0] + 15, one["box"][1] + 5), (one["box"][0] + 15, one["box"][1] + 15), (2, 2)]
            return [
                page.evaluate(
                    "([x, y]) => [...document.getElementById('canvas').getContext('2d').getImageData(x, y, 1, 1).data]",
                    [x * scale, y * scale],
                )
                for x, y in points
            ]

        bare, lower_half = colours("0"), colours("2")
        assert bare[0] == lower_half[0]  # the upper half is not in the mask
        assert bare[1] != lower_half[1]
        assert bare[2] == lower_half[2]


@pytest.mark.slow
def test_a_report_of_10000_objects_takes_a_minute_and_20_mb_at_most(tmp_path: Path) -> None:
    import time

    images = {f"{place}.jpg": many(20, seed=place, size_hw=(480, 640)) for place in range(500)}
    made = make_run(tmp_path, images, size_hw=(480, 640), shards=8)
    started = time.process_time()  # of the processor: others may work here
    written = write_report(made.paths, ReportConfig(ground_truth=made.truth, gallery=1000))
    assert time.process_time() - started < 60
    assert written["objects"] == 10_000
    assert Path(written["report"]).stat().st_size < 20_000_000
    with opened(Path(written["report"])) as (page, told):
        page.locator("#order").select_option("best")
        page.locator(".card").first.scroll_into_view_if_needed()
        page.locator(".card canvas[data-drawn]").first.wait_for()
        assert told == []
