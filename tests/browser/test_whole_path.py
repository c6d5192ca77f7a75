"""The whole path, as a person walks it: a file, a preview, a run, answers side by side, a zip that stock PEFT loads."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import pytest

from prefix_studio.settings import BUNDLED_MODEL
from tests.browser.running_app import running_app

pytestmark = pytest.mark.browser

# Generous, as the machine may be busy; on two free cores the whole walk takes about a minute.
PATIENCE = 180_000
EVIL = "<img src=x onerror='window.hacked=1'>"
NAMES = "Alder Birch Cedar Dogwood Elm Fir Ginkgo Hazel Ironwood Juniper Katsura Linden Maple Nutmeg Oak Pine".split()


@pytest.fixture(scope="module")
def app(tmp_path_factory):
    with running_app(tmp_path_factory.mktemp("walk") / "home") as app:
        yield app


@pytest.fixture
def page(app, browser):
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    context.set_default_timeout(PATIENCE)
    page = context.new_page()
    page.problems = []
    page.on("pageerror", lambda error: page.problems.append(str(error)))
    page.on("request", lambda request: page.problems.extend(outside(request.url, app.url)))
    yield page
    context.close()


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    file = tmp_path_factory.mktemp("rows") / "trees.csv"
    lines = [f'"plant: {name} =>"," {name} grows well."' for name in NAMES]
    file.write_text("\n".join(["question,answer", *lines, '"plant: none =>",""', f'"{EVIL} {{{{ 7*7 }}}}"," safe"']))
    return file


@pytest.fixture(scope="module")
def shots(tmp_path_factory):
    """Where screenshots go: PREFIX_STUDIO_SCREENSHOTS, or the test's own folder."""
    folder = Path(os.environ.get("PREFIX_STUDIO_SCREENSHOTS") or tmp_path_factory.mktemp("screenshots"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def outside(url: str, home: str) -> list[str]:
    return [] if url.startswith((home, "data:", "blob:")) else [f"asked for {url}"]


def value(page, selector: str) -> str:
    return page.locator(selector).input_value()


def test_from_a_file_to_a_zip_that_peft_loads(app, page, browser, rows, shots, tmp_path):
    page.goto(app.url)
    page.locator("#estimate dd").first.wait_for()
    assert value(page, "#source textarea, #source input") == "sample:restaurants", "opens ready to start"
    assert "layers take a prefix" in page.locator("#preflight").inner_text()
    the_learning_rate_follows_the_projection(page)
    page.screenshot(path=shots / "1-tune.png")

    upload_and_look_at(page, rows)
    page.screenshot(path=shots / "2-preview.png")
    a_wrong_value_loses_nothing(page, app)
    run_id = start(page)
    page.locator("#run-head").get_by_text("finished").wait_for()
    page.locator("#loss-curve svg").wait_for()
    assert page.locator("#loss-curve .ps-held").count() >= 2, "checked at the first and at the last step"
    page.screenshot(path=shots / "3-run.png")

    adapter = download(page, tmp_path)
    tuned = compare(page)
    page.screenshot(path=shots / "4-playground.png")
    stock_peft_agrees(adapter, *tuned)

    a_second_browser_sees_the_same(browser, app, run_id)
    assert page.problems == []


def the_learning_rate_follows_the_projection(page) -> None:
    plain = value(page, "#learning-rate input")
    page.locator(".ps-card", has=page.locator("#virtual-tokens")).locator(".ps-expert > button").click()
    page.locator("#projection input").check()
    page.wait_for_function("rate => document.querySelector('#learning-rate input').value !== rate", arg=plain)
    page.get_by_text("learned through a small network").wait_for()
    page.locator("#projection input").uncheck()
    page.wait_for_function("rate => document.querySelector('#learning-rate input').value === rate", arg=plain)
    page.get_by_text("learned through a small network").wait_for(state="hidden")


def upload_and_look_at(page, rows) -> None:
    page.locator("#upload input[type=file]").set_input_files(rows)
    page.locator("#columns").get_by_text("trees.csv").wait_for()
    page.locator("#preview").get_by_text("Alder").first.wait_for()
    assert value(page, "#prompt-template textarea") == "{{ question }}"
    assert value(page, "#completion-template textarea") == "{{ answer }}"
    preview = page.locator("#preview")
    assert "18 rows read" in preview.inner_text()
    assert "Row 17: empty completion" in preview.inner_text()
    learned = "".join(preview.locator(".ps-example").first.locator(".ps-learned").all_inner_texts())
    assert "grows well." in learned
    assert "plant:" not in learned, "the prompt is read, not learned"
    assert page.evaluate("window.hacked") is None


def a_wrong_value_loses_nothing(page, app) -> None:
    rate = page.locator("#learning-rate input")
    rate.fill("-1")
    page.get_by_text("learning_rate: input should be greater than 0").wait_for()
    page.locator("#start").click()
    page.locator("#summary-notice").get_by_text("learning_rate").wait_for()
    page.goto(app.url)
    page.locator("#columns").get_by_text("trees.csv").wait_for()
    assert value(page, "#learning-rate input") == "-1", "the draft survives a reload, wrong value and all"
    page.locator("#learning-rate input").fill("0.1")
    page.locator("#virtual-tokens input[type=number]").fill("6")
    page.locator("#max-steps input").fill("20")
    page.locator("#max-steps input").press("Enter")
    page.get_by_text("They are trained for 20 steps").wait_for()
    page.locator("#estimate").get_by_text("20 steps").wait_for()


def start(page) -> str:
    page.locator("#start").dblclick()
    page.wait_for_url("**run=**")
    page.locator("#run-list .ps-row").first.wait_for()
    assert page.locator("#run-list .ps-row").count() == 1, "pressing Start twice makes one run"
    return page.url.partition("run=")[2]


def download(page, folder: Path) -> Path:
    with page.expect_download() as awaited:
        page.locator("#run-download").click()
    saved = folder / awaited.value.suggested_filename
    awaited.value.save_as(saved)
    with zipfile.ZipFile(saved) as archive:
        archive.extractall(folder / "adapter")
    return next((folder / "adapter").rglob("adapter_config.json")).parent


def compare(page) -> tuple[str, str]:
    """Generates from a held-back row and returns the prompt and the tuned answer."""
    page.locator("#run-play").click()
    page.wait_for_function("document.querySelector('#prompt textarea')?.value.length > 0")
    page.evaluate(
        """() => { window.frames_seen = new Set(); new MutationObserver(() => {
             const pane = document.querySelector('[data-pane=tuned]'); if (pane) window.frames_seen.add(pane.innerText);
           }).observe(document.querySelector('#answers'), {childList: true, subtree: true, characterData: true}) }"""
    )
    page.locator("#generate").click()
    page.locator(".ps-reference").wait_for()
    assert page.locator(".ps-pane").count() == 2
    assert page.evaluate("window.frames_seen.size") > 1, "the answer came in pieces"
    assert page.locator("[data-pane=base]").inner_text() != page.locator("[data-pane=tuned]").inner_text()
    return value(page, "#prompt textarea"), page.locator("[data-pane=tuned]").inner_text()


def stock_peft_agrees(adapter: Path, prompt: str, tuned: str) -> None:
    """PEFT's own loading of the zip: the same logits as our injection, and the text that the page showed."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from prefix_studio.prefix.files import load_prefix
    from prefix_studio.prefix.inject import forward_with_prefix

    tokenizer = AutoTokenizer.from_pretrained(BUNDLED_MODEL)
    model = AutoModelForCausalLM.from_pretrained(BUNDLED_MODEL, dtype=torch.float32).eval()
    asked = tokenizer(prompt, return_tensors="pt")
    with torch.no_grad():
        ours = forward_with_prefix(model, load_prefix(adapter, model), asked.input_ids, asked.attention_mask)
        stock = PeftModel.from_pretrained(model, adapter).eval()
        theirs = stock(input_ids=asked.input_ids, attention_mask=asked.attention_mask).logits
        written = stock.generate(**asked, max_new_tokens=128, do_sample=False)
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)
    text = tokenizer.decode(written[0, asked.input_ids.shape[1] :], skip_special_tokens=True)
    assert " ".join(text.split()) == " ".join(tuned.split())


def a_second_browser_sees_the_same(browser, app, run_id: str) -> None:
    context = browser.new_context(viewport={"width": 400, "height": 800}, color_scheme="dark")
    context.set_default_timeout(PATIENCE)
    page = context.new_page()
    page.goto(f"{app.url}/?tab=runs&run={run_id}&__theme=dark")
    page.locator("#run-head").get_by_text("finished").wait_for()
    for tab in ("Tune", "Playground", "Adapters", "Runs"):
        page.get_by_role("tab", name=tab, exact=True).click()
        page.wait_for_timeout(300)
        assert page.evaluate("document.documentElement.scrollWidth") <= 400, f"{tab} scrolls sideways"
    page.get_by_role("tab", name="Tune", exact=True).click()
    assert value(page, "#max-steps input") == "20", "the draft is the person's, not the browser's"
    context.close()
