"""Makes the README's pictures: python -m tests.browser.screenshots [--max-steps N] [--out FOLDER].

Starts the app on a fresh home, tunes the bundled model on the sample with the form's defaults, compares base and tuned,
and keeps what the page looked like. Needs Chromium. Nothing in the pictures is staged: the run is the run.
"""

from __future__ import annotations

import argparse
import io
import shutil
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

from prefix_studio.settings import ASSETS
from tests.browser.running_app import running_app

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
PATIENCE = 30 * 60 * 1000
WIDE = {"width": 1280, "height": 860}
COLOURS = 192


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--max-steps", type=int, help="a shorter run, to try the script out")
    options.add_argument("--out", type=Path, default=ASSETS / "screenshots")
    chosen = options.parse_args()
    chosen.out.mkdir(parents=True, exist_ok=True)
    chromium = shutil.which("chromium") or "/usr/bin/chromium"
    with tempfile.TemporaryDirectory() as folder, running_app(Path(folder) / "home") as app, sync_playwright() as play:
        browser = play.chromium.launch(executable_path=chromium, args=FLAGS)
        page = browser.new_page(viewport=WIDE)
        page.set_default_timeout(PATIENCE)
        page.goto(app.url)
        take_all(page, chosen.out, chosen.max_steps)
        browser.close()


def take_all(page: Page, out: Path, max_steps: int | None) -> None:
    """The walk: the form, the run half way and done, base and tuned side by side."""
    page.locator("#estimate dd").first.wait_for()
    if max_steps:
        page.locator("#max-steps input").fill(str(max_steps))
        page.locator("#max-steps input").press("Enter")
        page.evaluate("window.scrollTo(0, 0)")
    page.locator("#preview .ps-example").first.wait_for()
    page.mouse.move(0, 0)
    keep(page, out / "tune.png")
    page.locator("#start").click()
    page.locator("#run-head").get_by_text("finished").wait_for()
    page.wait_for_timeout(1500)
    keep(page, out / "run.png")
    page.locator("#run-play").click()
    page.wait_for_function("document.querySelector('#prompt textarea')?.value.length > 0")
    page.locator("#generate").click()
    page.locator(".ps-reference").wait_for()
    page.mouse.move(0, 0)
    page.wait_for_timeout(800)
    keep(page, out / "playground.png")


def keep(page: Page, path: Path) -> None:
    """The window as a small PNG: a page has few colours, so a palette of them is enough."""
    picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    picture.quantize(COLOURS, dither=Image.Dither.NONE).save(path, optimize=True)
    print(f"{path}  {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
