"""The Tune tab's slow half: what is asked, in which order, and that an older answer never covers a newer one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import gradio as gr
import pytest

from prefix_studio.ui.tune import SLOW, Newest, build_tune
from prefix_studio.ui.tune_form import build_form
from prefix_studio.ui.tune_view import opening_values

Looks = Callable[..., Iterator[dict[str, Any]]]


@pytest.fixture
def look(studio) -> Looks:
    """The tab's handler, with what is shown by name."""
    with gr.Blocks():
        keys = list(build_form([], [], opening_values()).fields)
    with gr.Blocks() as page:
        build_tune(studio)
    settle = next(event.fn for event in page.fns.values() if event.name == "settle")

    def look(newest: Newest, last: dict[str, Any] | None, values: dict[str, Any]) -> Iterator[dict[str, Any]]:
        for updates in settle(newest, last, *(values[key] for key in keys)):
            yield {name: value for name, value in zip(SLOW, updates, strict=True) if value != gr.skip()}

    return look


def asked(models) -> list[str]:
    return [name for name, *_ in models.asked]


def test_a_new_model_is_looked_at_first(look, models):
    shown = list(look(Newest(), None, opening_values()))
    assert asked(models) == ["check", "inspect", "preview", "estimate"]
    assert "Looking at the model" in shown[1]["model_card"]
    assert "takes a prefix" in shown[2]["model_card"]
    assert shown[-1] == {}, "Gradio shows what came last once more"


def test_the_same_model_comes_after_the_rows(look, models):
    (settled,) = [news["settled"] for news in look(Newest(), None, opening_values()) if "settled" in news]
    models.asked.clear()
    shown = list(look(Newest(), settled, opening_values() | {"data.max_length": 64}))
    assert asked(models) == ["inspect", "preview", "check", "estimate"]
    assert not any("Looking at the model" in news.get("model_card", "") for news in shown)
    models.asked.clear()
    assert list(look(Newest(), settled, opening_values() | {"name": "another"})) == [{}]
    assert asked(models) == [], "a name changes nothing that is asked"


def test_an_older_look_shows_nothing_once_a_newer_has_begun(look):
    newest = Newest()
    older = look(newest, None, opening_values())
    assert "settled" in next(older)
    newer = list(look(newest, None, opening_values() | {"model.id": "gpt2"}))
    assert list(older) == [{}]
    assert any("estimate" in news for news in newer)


@pytest.mark.parametrize(
    ("found", "chosen", "visible"), [(False, "decoder", False), (True, "decoder", True), (False, "all", True)]
)
def test_where_the_prefix_goes_is_asked_of_encoder_decoder_models(look, models, found, chosen, visible):
    models.answers["check"] = models.answers["check"] | {"encoder_decoder": found}
    shown = list(look(Newest(), None, opening_values() | {"prefix.submodules": chosen}))
    (update,) = [news["submodules"] for news in shown if "submodules" in news]
    assert update["visible"] is visible
