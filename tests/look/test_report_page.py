"""`report`: what the page does in a browser."""

import socket
import time
from pathlib import Path

import pytest

from pseudolabel.pipelines.look.report import write_report
from pseudolabel.pipelines.options.look import ReportConfig
from tests.look.browser import opened
from tests.look.made_runs import FIRST_ID, make_run, many
from tests.look.report_page import HOSTILE_CLASS, HOSTILE_FILE, data_of


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
