"""A real Chromium for tests of pages; without one they are skipped, loudly."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def find_chromium() -> str:
    """The path of an installed Chromium; `PSEUDOLABEL_CHROMIUM` names another."""
    found = os.environ.get("PSEUDOLABEL_CHROMIUM") or next(filter(None, map(shutil.which, _NAMES)), None)
    if not found:
        pytest.skip("PAGES NOT TESTED: no Chromium here; install one (Debian: chromium) or set PSEUDOLABEL_CHROMIUM")
    return found


@contextmanager
def opened(path: Path, *, scheme: str = "light", width: int = 1280) -> Iterator[tuple[Any, list[str]]]:
    """A page in a browser, and what it complained of or asked the network for so far."""
    playwright = pytest.importorskip("playwright.sync_api", reason="PAGES NOT TESTED: playwright is not installed")
    told: list[str] = []
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=find_chromium(), args=["--no-sandbox"])
        try:
            page = browser.new_context(color_scheme=scheme, viewport={"width": width, "height": 900}).new_page()
            page.set_default_timeout(10_000)
            page.on("console", lambda message: told.append(f"{message.type}: {message.text}"))
            page.on("pageerror", lambda error: told.append(f"error: {error}"))
            page.on("dialog", lambda dialog: (told.append(f"dialog: {dialog.message}"), dialog.dismiss()))
            page.on("request", lambda asked: told.append(f"request: {asked.url}") if _leaves(asked.url, path) else None)
            page.goto(path.as_uri())
            yield page, told
        finally:
            browser.close()


def _leaves(url: str, path: Path) -> bool:
    return not url.startswith("data:") and url != path.as_uri()
