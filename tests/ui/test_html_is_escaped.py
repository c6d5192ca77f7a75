"""Whatever a person, a file or a model wrote is shown as text, wherever it is shown."""

from __future__ import annotations

import json
from html.parser import HTMLParser

import pytest

from prefix_studio.adapters.shelf import AdapterRow
from prefix_studio.errors import StudioError
from prefix_studio.recipe import Recipe
from prefix_studio.runs.table import RunRow
from prefix_studio.ui import fragments, tune_view
from prefix_studio.ui.adapters_view import shelf_html
from prefix_studio.ui.compare_html import Pane, panes_html
from prefix_studio.ui.live import Seen
from prefix_studio.ui.model_html import model_card
from prefix_studio.ui.preview_html import preview_html
from prefix_studio.ui.runs_html import run_head_html, run_row_html
from prefix_studio.ui.samples_html import samples_html
from tests.ui.conftest import CHECK

EVIL = "\"'><img src=x onerror=alert(1)><script>alert(2)</script>"


class Reader(HTMLParser):
    """Collects elements and attributes, as a browser would see them."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.text = ""

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data):
        self.text += data


def evil_run(tmp_path, state) -> RunRow:
    plain = dict.fromkeys(RunRow.__dataclass_fields__)
    return RunRow(
        **plain
        | {
            "id": EVIL,
            "name": EVIL,
            "state": state,
            "error": EVIL,
            "category": EVIL,
            "folder": tmp_path,
            "created": 1.0,
            "position": 2,
        }
    )


def pieces(tmp_path):
    token = {"text": EVIL, "learned": True}
    report = {"rows_read": 2, "rows_used": 1, "dropped": [{"row": 1, "why": EVIL}], "warnings": [EVIL]}
    yield "preview", preview_html({"report": report, "examples": [{"tokens": [token]}]}, 3)
    for state in ("queued", "running", "failed", "finished"):
        run = evil_run(tmp_path, state)
        yield f"row {state}", fragments.picker([(run.id, run_row_html(run, Seen(state=EVIL)))], run.id)
        yield f"head {state}", run_head_html(run, Seen(state=EVIL))
    yield "panes", panes_html([Pane(EVIL, EVIL, EVIL, 3)], EVIL)
    row = AdapterRow(EVIL, EVIL, EVIL, tmp_path, 1.0, 10, 3, "import")
    yield "shelf", shelf_html([row], EVIL)
    (tmp_path / "samples.json").write_text(
        json.dumps([{"prompt": EVIL, "references": [EVIL], "base": EVIL, "tuned": EVIL}])
    )
    yield "samples", samples_html(tmp_path)
    yield "columns", tune_view.columns_html({"columns": [EVIL], "row_count": 1}, EVIL)
    recipe = Recipe.from_fields({"model": {"id": EVIL}, "data": {"source": EVIL}, "prefix": {"init_text": EVIL}})
    evil_check = CHECK | {"family": EVIL, "reason": EVIL, "warnings": [EVIL]}
    for supported in (True, False):
        yield f"model {supported}", model_card(recipe, evil_check | {"supported": supported})
    yield "gave way", run_head_html(evil_run(tmp_path, "running"), Seen(smaller_batches={EVIL: EVIL}))
    yield "words", tune_view.summarise(tune_view.opening_values() | {"data.source": EVIL, "model.id": EVIL}).words
    yield "notice", fragments.error_notice(StudioError(EVIL, EVIL))
    yield "header", fragments.header(EVIL, EVIL, (EVIL, "good"), EVIL)
    yield "empty", fragments.empty(EVIL, EVIL) + fragments.heading(EVIL, EVIL) + fragments.busy_notice(EVIL)
    yield "facts", fragments.facts([(EVIL, EVIL, EVIL)]) + fragments.bar(0.5, EVIL)


@pytest.fixture
def shown(tmp_path):
    return dict(pieces(tmp_path))


def test_no_piece_of_the_page_lets_markup_through(shown):
    for name, piece in shown.items():
        reader = Reader()
        reader.feed(piece)
        assert not reader.tags & {"img", "script"}, name
        assert not {attribute for attribute in reader.attributes if attribute.startswith("on")}, name


def test_and_every_piece_shows_the_text_itself(shown):
    for name in ("preview", "row failed", "panes", "shelf", "samples", "columns", "notice", "header"):
        reader = Reader()
        reader.feed(shown[name])
        assert "onerror=alert(1)" in reader.text, name
