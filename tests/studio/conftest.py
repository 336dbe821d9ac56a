"""A browser in a thread of its own: the chat page's tests keep another one open, and Playwright allows one per thread."""

import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest


@pytest.fixture
def in_browser() -> Callable[[Callable[[Any], None]], None]:
    """`in_browser(function)` calls `function(browser)`, and raises what it raises."""
    playwright = pytest.importorskip("playwright.sync_api", reason="the browser tests need `pip install playwright`")
    found = next((path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip("no Chromium on this machine: the annotation page is not tested (Debian: `apt install chromium`)")
    quiet = ["--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run"]

    def within(function: Callable[[Any], None]) -> None:
        with playwright.sync_playwright() as driver:
            chromium = driver.chromium.launch(executable_path=found, args=["--no-sandbox", "--disable-gpu", *quiet])
            try:
                function(chromium)
            finally:
                chromium.close()

    def run(function: Callable[[Any], None]) -> None:
        with ThreadPoolExecutor(max_workers=1) as thread:
            thread.submit(within, function).result(timeout=120)

    return run
