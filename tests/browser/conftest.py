"""A browser for the tests that walk the page: Debian's Chromium, or a told skip."""

from __future__ import annotations

import os
import shutil

import pytest

PLACES = ("/usr/bin/chromium", "chromium", "chromium-browser", "google-chrome")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]


@pytest.fixture(scope="module")
def browser():
    """Chromium, headless. Skipped where there is none, unless PREFIX_STUDIO_REQUIRE_BROWSER=1 demands it.

    No wider than a module: while Playwright is open its event loop counts as running, and no other can run.
    """
    found = next((path for path in map(shutil.which, PLACES) if path), None)
    if found is None:
        if os.environ.get("PREFIX_STUDIO_REQUIRE_BROWSER") == "1":
            pytest.fail("PREFIX_STUDIO_REQUIRE_BROWSER=1, but no Chromium was found (apt-get install chromium)")
        pytest.skip("no Chromium found: the page was not walked (apt-get install chromium)")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=FLAGS)
        yield browser
        browser.close()
