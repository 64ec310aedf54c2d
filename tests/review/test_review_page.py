"""The page of `review` in a real browser: by keys, over a kill, in two tabs, with hostile names; nothing goes out."""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pseudolabel.pipelines.api import Run
from pseudolabel.reviews import read_answers, settled
from tests.review.drawn_run import CLASSES

CHROMIUM = os.environ.get("PSEUDOLABEL_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
sync_api = pytest.importorskip("playwright.sync_api", reason="REVIEW'S PAGE NOT TESTED: no playwright")
pytestmark = pytest.mark.skipif(not CHROMIUM, reason="REVIEW'S PAGE NOT TESTED: no chromium; set PSEUDOLABEL_CHROMIUM")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def context(browser: Any) -> Iterator[Any]:
    """Tabs that share nothing with other tests; whatever they asked for elsewhere, or complained of, fails the test."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    asked: list[str] = []
    complaints: list[str] = []
    context.on("request", lambda request: asked.append(request.url))
    context.on("weberror", lambda error: complaints.append(str(error.error)))
    context.on("dialog", lambda dialog: complaints.append(dialog.message))
    yield context
    assert asked
    assert [url for url in asked if not re.match(r"(http://127\.0\.0\.1:\d+/|data:,$)", url)] == []
    assert complaints == []
    context.close()


@contextmanager
def program(run: Run, *options: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`pseudolabel review` as a process of its own, and the page's address."""
    command = [sys.executable, "-m", "pseudolabel.cli.main", "review", str(run.paths.root), "--port", "0", *options]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        address = next(found[0] for line in process.stderr if (found := re.search(r"http://\S+", line)))
        yield process, address
    finally:
        process.kill()
        process.communicate()


def open_page(context: Any, address: str) -> Any:
    page = context.new_page()
    page.goto(address)
    page.wait_for_selector("body[data-shown]", timeout=60_000)
    return page


def press(page: Any, key: str) -> None:
    """A key that answers, and the next object's picture."""
    before = page.evaluate("document.body.dataset.shown")
    page.keyboard.press(key)
    page.wait_for_function("shown => document.body.dataset.shown !== shown", arg=before, timeout=30_000)


def answers(run: Run, name: str = "me") -> list[Any]:
    return read_answers(run.paths.reviews / f"{name}.jsonl").answers


def drag(page: Any, *points: tuple[float, float]) -> None:
    """The pointer held down from one point of the canvas to the next, in shares of its size."""
    box = page.locator("canvas").bounding_box()
    spots = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in points]
    page.mouse.move(*spots[0])
    page.mouse.down()
    for spot in spots[1:]:
        page.mouse.move(*spot, steps=6)
    page.mouse.up()


def test_thirty_objects_by_keys_over_a_kill_in_the_middle(run: Run, context: Any) -> None:
    with program(run, "--budget", "30") as (process, address):
        page = open_page(context, address)
        for key in "112415" * 2 + "111":
            page.keyboard.press("5") if key == "5" else press(page, key)
        process.send_signal(signal.SIGKILL)
        process.wait()
        page.keyboard.press("1")
        page.wait_for_selector("#message.bad")
        assert "still running" in page.inner_text("#message")
        page.close()
    assert len(answers(run)) == 13
    with program(run, "--budget", "30") as (process, address):
        page = open_page(context, address)
        assert page.inner_text("#progress") == "13 of 30"
        for _ in range(17):
            press(page, "1")
        page.wait_for_function("() => document.querySelector('#class').textContent === 'Done'")
        page.click("text=end the review")
        page.wait_for_selector("body[data-ended]")
        out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "30 answers" in out
    assert len(settled(answers(run))) == 30
    assert len(answers(run)) == 30
    run.step("fuse", refine="none", engine="inline")
    assert run.labels().table["decision_reason"].to_pylist().count("reviewed") == 30


def test_on_a_narrow_screen_the_picture_has_its_width(run: Run, context: Any) -> None:
    with program(run) as (_, address):
        page = open_page(context, address)
        page.set_viewport_size({"width": 390, "height": 844})
        assert page.locator("canvas").bounding_box()["width"] == 390
        assert page.evaluate("document.documentElement.scrollWidth") == 390
        page.locator("[data-do=accept]").scroll_into_view_if_needed()
        shown = page.evaluate("document.body.dataset.shown")
        page.click("[data-do=accept]")
        page.wait_for_function("shown => document.body.dataset.shown !== shown", arg=shown)
    assert [one.verdict for one in answers(run)] == ["accept"]


def test_two_tabs_do_not_answer_twice(run: Run, context: Any) -> None:
    with program(run) as (_, address):
        first, second = open_page(context, address), open_page(context, address)
        shown = first.evaluate("document.body.dataset.shown")
        assert second.evaluate("document.body.dataset.shown") == shown
        press(first, "1")
        press(second, "4")
        assert "has an answer already" in second.inner_text("#message")
        assert second.evaluate("document.body.dataset.shown") == first.evaluate("document.body.dataset.shown")
    assert [(str(one.annotation_id), one.verdict) for one in answers(run)] == [(shown, "accept")]


def test_brush_polygon_and_undo_change_the_mask_as_drawn(run: Run, context: Any) -> None:
    with program(run) as (_, address):
        page = open_page(context, address)
        page.keyboard.press("e")
        drag(page, (0.5, 0.45), (0.5, 0.55))
        assert "drawn over" in page.inner_text("#about")
        page.keyboard.press("z")
        assert "drawn over" not in page.inner_text("#about")
        page.keyboard.press("p")
        for x, y in ((0.45, 0.4), (0.55, 0.4), (0.55, 0.6), (0.45, 0.6)):
            drag(page, (x, y))
        page.keyboard.press("x")
        press(page, "1")
        press(page, "1")
        page.keyboard.press("z")
        page.wait_for_function("() => document.querySelector('#message').textContent.includes('taken back')")
    said = answers(run)
    assert [one.verdict for one in said] == ["accept", "accept", "undo"]
    assert [one.origin for one in said[:2]] == ["drawn", "fused"]
    assert list(settled(said)) == [said[0].annotation_id]


def test_another_class_is_chosen_by_typing(run: Run, context: Any) -> None:
    with program(run) as (_, address):
        page = open_page(context, address)
        own = page.inner_text("#class")
        page.keyboard.press("3")
        page.keyboard.type(CLASSES[0][:9] if own == CLASSES[1] else CLASSES[1][:9])
        page.keyboard.press("Enter")
        assert page.inner_text("#class").endswith("(changed)")
        press(page, "1")
        page.keyboard.press("3")
        page.keyboard.type("none of")
        press(page, "Enter")
    assert [one.verdict for one in answers(run)] == ["accept", "wrong_class"]
    assert answers(run)[0].category_id == (1 if own == CLASSES[1] else 2)


def test_a_class_that_nobody_knows_is_no_answer(run: Run, context: Any) -> None:
    with program(run) as (_, address):
        page = open_page(context, address)
        page.keyboard.press("3")
        page.keyboard.type("zzz")
        page.keyboard.press("Enter")
        page.wait_for_timeout(300)
        assert page.inner_text("#unknown") == "No class has that in its name."
        assert answers(run) == []
        page.keyboard.press("ArrowUp")
        press(page, "Enter")
    assert [one.verdict for one in answers(run)] == ["wrong_class"]


def test_of_classes_the_one_of_the_very_name_comes_first(run: Run, context: Any) -> None:
    with program(run) as (_, address):
        page = open_page(context, address)
        page.evaluate("classes = [{id: 7, name: 'racecar'}, {id: 8, name: 'carrot'}, {id: 9, name: 'Car'}]")
        page.keyboard.press("3")
        page.keyboard.type("car")
        assert page.locator("#classes li").all_inner_texts()[:3] == ["Car", "carrot", "racecar"]


def test_hostile_names_are_text(run: Run, context: Any) -> None:
    with program(run) as (_, address):
        page = open_page(context, address)
        assert page.inner_text("#class") in CLASSES
        for _ in range(12):
            press(page, "s")
        page.keyboard.press("3")
        assert page.locator("#classes li").all_inner_texts()[:2] == list(CLASSES)
        assert page.evaluate("window.hit") is None
        assert page.locator("img, main script").count() == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_buttons_can_be_read_in_light_and_dark(run: Run, context: Any, scheme: str, tmp_path: Path) -> None:
    with program(run) as (_, address):
        page = context.new_page()
        page.emulate_media(color_scheme=scheme)
        page.goto(address)
        page.wait_for_selector("body[data-shown]", timeout=60_000)
        ink, ground = page.evaluate(
            "['color', 'backgroundColor'].map((name) => getComputedStyle(document.querySelector('button'))[name])"
        )
        page.screenshot(path=os.environ.get("PSEUDOLABEL_SHOTS", str(tmp_path)) + f"/review-{scheme}.png")
    assert contrast(ink, ground) > 7


def contrast(one: str, other: str) -> float:
    """WCAG's ratio of luminances of two colours as CSS has them."""

    def luminance(css: str) -> float:
        parts = [int(part) / 255 for part in re.findall(r"\d+", css)[:3]]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)
