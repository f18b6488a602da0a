"""Pages in headless Chromium: opened without a network, listened to, and examined by axe-core."""

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, sync_playwright

OPTIONS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
VIEWS = [(390, "light"), (390, "dark"), (1280, "light"), (1280, "dark")]
"""A phone's and a desk's width in pixels, light and dark."""


@contextmanager
def chromium() -> Iterator[Browser]:
    """The browser; where there is none, the test is skipped."""
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        pytest.skip("Chromium is missing: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=OPTIONS)
        yield browser
        browser.close()


@dataclass
class Heard:
    """What a page said and asked for while it was open."""

    errors: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def outside(self, *allowed: str) -> list[str]:
        """Requests for anything else than what begins so."""
        return [url for url in self.requests if not url.startswith((*allowed, "data:", "blob:"))]


@contextmanager
def opened(browser: Browser, url: str, width: int, scheme: Any, **options: Any) -> Iterator[tuple[Page, Heard]]:
    """A page of that width, light or dark."""
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, **options)
    page, heard = context.new_page(), Heard()
    page.on("console", lambda said: heard.errors.append(said.text) if said.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: heard.errors.append(str(error)))
    page.on("request", lambda request: heard.requests.append(request.url))
    page.goto(url)
    yield page, heard
    context.close()


def violations(page: Page) -> list[str]:
    """What axe-core finds that is serious or worse, in words."""
    found = Axe().run(page).response["violations"]
    return [
        f"{item['id']}: {item['help']} ({item['nodes'][0]['html'][:200]})"
        for item in found
        if item["impact"] in ("serious", "critical")
    ]


def until(page: Page, holds: str, seconds: float = 30.0) -> None:
    """Waits until an expression holds. Playwright's own way of that is an eval, which a strict page forbids."""
    end = time.monotonic() + seconds
    while not page.evaluate(holds):
        assert time.monotonic() < end, f"in {seconds:g} s it did not come to hold: {holds}"
        page.wait_for_timeout(50)


def overflow(page: Page) -> int:
    """Pixels that the page is wider than its window."""
    return int(page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth"))


def file_url(path: Path) -> str:
    return path.resolve().as_uri()
