"""A headless Chromium for tests of pages: no network, and every complaint is kept. Skips where there is none."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def find_chromium() -> str | None:
    """The browser that the environment variable CHROMIUM names, or the first that is installed."""
    return os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)


@contextmanager
def launched() -> Iterator[Any]:
    """A browser; the test is skipped if there is none or no playwright."""
    api = pytest.importorskip("playwright.sync_api", reason="browser tests need playwright: pip install playwright")
    path = find_chromium()
    if not path:
        pytest.skip(f"browser tests need Chromium: install one of {', '.join(NAMES)}, or name it in CHROMIUM")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@contextmanager
def opened(browser: Any, path: Path, width: int, **options: Any) -> Iterator[Any]:
    """A page at a width; at the end it must have said nothing, asked for nothing else, and have opened no dialog."""
    context = browser.new_context(viewport={"width": width, "height": 900}, offline=True, **options)
    page, wrong = context.new_page(), []
    page.set_default_timeout(60_000)  # a busy machine is slow, not wrong
    page.on("console", lambda message: wrong.append(f"console {message.type}: {message.text}"))
    page.on("pageerror", lambda error: wrong.append(f"error: {error}"))
    page.on("requestfailed", lambda request: wrong.append(f"failed: {request.url[:100]}"))
    page.on("dialog", lambda dialog: (wrong.append(f"dialog: {dialog.message}"), dialog.dismiss()))
    page.on(
        "request",
        lambda request: None if request.url.startswith((path.as_uri(), "data:")) else wrong.append(request.url),
    )
    page.goto(path.as_uri())
    yield page
    context.close()
    assert not wrong
