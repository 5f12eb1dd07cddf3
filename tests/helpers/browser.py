"""A real Chromium for tests: started for a module, one fresh profile per page, screenshots, accessibility checks.

Use the fixtures `chromium` and `page` (tests/conftest.py) and mark the module with `browser` and `slow`. The browser is
the system's own, driven by Playwright.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect, sync_playwright

SCREENSHOTS = Path(__file__).parents[2] / "build" / "screenshots"
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
PATIENCE = 60_000
"""Milliseconds a page may take for anything before the test fails; machines under load are slow."""
SERIOUS = ("serious", "critical")


def find_chromium() -> str | None:
    """The browser: SPARK_CHROMIUM where it is set, else `chromium`, `chromium-browser` or `google-chrome`."""
    named = os.environ.get("SPARK_CHROMIUM")
    if named:
        return named if Path(named).is_file() else None
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@contextmanager
def launched_chromium() -> Iterator[Browser]:
    """A headless browser with a fresh profile, closed at the end.

    Not for a whole session: Playwright's synchronous driver keeps an event loop running on this thread, and other
    tests want to run their own.
    """
    expect.set_options(timeout=PATIENCE)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), headless=True, args=list(FLAGS))
        try:
            yield browser
        finally:
            browser.close()


def new_page(
    browser: Browser, *, scheme: Literal["light", "dark"] = "light", width: int = 1280, height: int = 900
) -> Page:
    """A page with cookies and storage of its own. Close its context when done: `page.context.close()`."""
    context = browser.new_context(color_scheme=scheme, viewport={"width": width, "height": height})
    context.set_default_timeout(PATIENCE)
    return context.new_page()


def screenshot(page: Page, name: str, selector: str | None = None) -> Path:
    """The page, or its first element that the selector finds, as build/screenshots/NAME.png."""
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    path = SCREENSHOTS / f"{name}.png"
    if selector is None:
        page.screenshot(path=path)
    else:
        page.locator(selector).first.screenshot(path=path)
    return path


def serious_violations(page: Page, selector: str) -> list[str]:
    """What axe finds serious or critical within the elements that the selector finds, a line for each rule broken.

    Raises:
        AssertionError: the selector finds nothing, so that there would be nothing to check.
    """
    assert page.locator(selector).count() > 0, f"axe has nothing to look at: {selector}"
    found = Axe().run(page, context=selector).response["violations"]
    return [
        f"{rule['id']} ({rule['impact']}): {rule['help']}: " + "; ".join(node["html"][:200] for node in rule["nodes"])
        for rule in found
        if rule["impact"] in SERIOUS
    ]


def dom_nodes(page: Page, selector: str = "body") -> int:
    """How many elements there are within the elements that the selector finds."""
    return int(
        page.evaluate(
            "s => [...document.querySelectorAll(s)].reduce((n, e) => n + e.querySelectorAll('*').length, 0)", selector
        )
    )
