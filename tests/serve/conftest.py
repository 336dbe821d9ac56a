"""Servers that live for one test, and a browser for the page."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.serve.live_site import Site, app_of, running


@pytest.fixture
def site_of(tmp_path: Path) -> Iterator[Callable[..., Site]]:
    """`site_of(completer, context_tokens=..., title=..., ...)`: a running server with one model called `handbook`."""
    with ExitStack() as open_sites:
        yield lambda *completers, **settings: open_sites.enter_context(running(app_of(*completers, home=tmp_path, **settings), tmp_path))


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="the browser tests need `pip install playwright`")
    found = next((path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip("no Chromium on this machine: the chat page is not tested (Debian: `apt install chromium`)")
    quiet = ["--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run"]
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=found, args=["--no-sandbox", "--disable-gpu", *quiet])
        yield chromium
        chromium.close()
