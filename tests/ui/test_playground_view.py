"""The Playground: whose base model, which prompt, and a stream of pieces that becomes panes."""

from __future__ import annotations

from pathlib import Path

import pytest

from prefix_studio.adapters.shelf import AdapterRow
from prefix_studio.errors import StudioError
from prefix_studio.recipe import Recipe
from prefix_studio.ui import playground_view as view


def adapter(name, base="gpt2", source="import"):
    return AdapterRow(name, name, base, Path("/shelf") / name, 1.0, 10, 4, source)


def test_a_stream_of_pieces_fills_the_panes_together():
    panes = view.panes_for([adapter("a")], "Start:")
    result = {
        "base": {"text": "no", "tokens": 1},
        "init_text": {"text": "hm", "tokens": 1},
        "adapters": [{"adapter": "/shelf/a", "text": "yes!", "tokens": 2}],
    }
    events = [{"row": "base", "text": "no"}, {"row": "/shelf/a", "text": "yes"}, {"row": "init_text", "text": "hm"}]
    clock = iter([0.0, 0.0, 0.01, 0.2, 0.2])
    shown = [
        pane.text
        for _ in view.frames([*events, {"done": result}], panes, lambda: next(clock))
        for pane in panes.values()
    ]
    assert shown == ["no", "", "", "no", "hm", "yes", "no", "hm", "yes!"], "the second piece waited for the third"
    assert all(pane.finished for pane in panes.values())
    assert [pane.tokens for pane in panes.values()] == [1, 1, 2]


def test_adapters_of_different_models_cannot_share_a_batch(studio):
    with pytest.raises(StudioError, match=r"different base models \(gpt2, other\)"):
        view.model_of(studio, [adapter("a"), adapter("b", "other")], "local")


def test_an_imported_adapter_names_its_base_itself(studio):
    assert view.model_of(studio, [adapter("a")], "local").id == "gpt2"
    assert view.held_back_prompts(studio, [], "local") == []


@pytest.mark.parametrize(
    ("adapters", "prompt", "said"), [([], "hi", "No adapter is chosen."), (["x"], " ", "The prompt is empty.")]
)
def test_what_is_missing_is_said(studio, adapters, prompt, said):
    with pytest.raises(StudioError, match=said):
        view.start_comparison(studio, "local", adapters, prompt)


def test_a_chat_is_asked_as_a_chat(studio):
    turns = [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]
    recipe = Recipe.from_fields({"data": {"source": "sample:replies", "format": "chat"}})
    run = studio.runs.submit(recipe)
    trained = [adapter(run, source="run")]
    assert view.asked(studio, trained, "local", "u", turns) == {"messages": turns}
    assert view.asked(studio, trained, "local", "hi", None) == {"messages": [{"role": "user", "content": "hi"}]}
    assert view.asked(studio, [adapter("a")], "local", "hi", None) == {"prompt": "hi"}


def test_prompts_are_offered_on_one_short_line():
    (label, index), *_ = view.prompt_choices([{"prompt": "a\n b" + "c" * 200, "reference": ""}])
    assert (label[:4], index) == ("a bc", 0)
    assert len(label) == view.SHOWN_PROMPT
