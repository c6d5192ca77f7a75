"""Comparing is one batch, and each row of it is what it would be alone."""

from __future__ import annotations

import pytest
from transformers import LlamaConfig, LlamaForCausalLM

from prefix_studio.data.tokens import prompt_ids
from prefix_studio.errors import StudioError
from prefix_studio.generation.engine import Row, Sampling
from prefix_studio.generation.text import complete, end_ids
from prefix_studio.prefix.files import load_prefix, save_adapter
from prefix_studio.prefix.initialise import text_prefix
from prefix_studio.recipe import ModelPart
from prefix_studio.server import engine
from prefix_studio.server.bases import Base
from prefix_studio.server.engine import compare, compare_once

SHORT = Sampling(max_new_tokens=12)
PROMPT = "name: Ada"


@pytest.fixture(scope="module")
def base(bundled):
    model, tokenizer = bundled
    return Base(ModelPart(), model, tokenizer, end_ids(model, tokenizer), used=0.0)


@pytest.fixture(scope="module")
def adapters(text_adapter, tmp_path_factory):
    folder = tmp_path_factory.mktemp("adapters")
    return [text_adapter(folder / "one", "The cat sat on the mat."), text_adapter(folder / "two", "A list:", 9)]


def alone(base, prefix):
    return complete(base.model, base.tokenizer, [Row(prompt_ids(PROMPT, base.tokenizer), prefix, SHORT)])[0]


def test_every_row_is_what_it_would_be_alone(base, adapters):
    *pieces, last = compare(base, adapters, PROMPT, "Once upon a time", SHORT)
    done = last["done"]
    expected = {
        "base": alone(base, None),
        "init_text": alone(base, text_prefix(base.model, base.tokenizer, "Once upon a time")),
        **{str(folder): alone(base, load_prefix(folder, base.model)) for folder in adapters},
    }
    told = {"base": done["base"], "init_text": done["init_text"]} | {row["adapter"]: row for row in done["adapters"]}
    assert list(done) == ["prompt", "base", "init_text", "adapters"]
    assert done["prompt"] == PROMPT
    assert [row["adapter"] for row in done["adapters"]] == [str(folder) for folder in adapters]
    for name, completion in expected.items():
        assert (told[name]["text"], told[name]["tokens"]) == (completion.text, completion.tokens)
        assert "".join(piece["text"] for piece in pieces if piece["row"] == name) == completion.text


def test_all_rows_share_one_batch(base, adapters, monkeypatch):
    batches = []

    def counted(model, tokenizer, rows, **settings):
        batches.append(len(rows))
        return stream_text(model, tokenizer, rows, **settings)

    stream_text = engine.stream_text
    monkeypatch.setattr(engine, "stream_text", counted)
    list(compare(base, adapters, PROMPT, "Once", SHORT))
    assert batches == [4]


def test_without_init_text_its_row_is_null(base):
    *_, last = compare(base, [], PROMPT, None, SHORT)
    assert last["done"]["init_text"] is None
    assert last["done"]["adapters"] == []


def test_a_chat_is_compared_by_its_last_message(base):
    *_, last = compare(base, [], [{"role": "user", "content": "Hello"}], None, SHORT)
    assert last["done"]["prompt"] == "Hello"
    assert last["done"]["base"]["tokens"] >= 1


def test_stopping_ends_all_rows(base, adapters):
    asked = iter([False, False, True])
    *_, last = compare(base, adapters, PROMPT, None, SHORT, lambda: next(asked))
    assert last["done"]["base"]["tokens"] == 2


def test_an_adapter_of_another_model_is_refused_by_both_names(base, tmp_path):
    small = LlamaForCausalLM(
        LlamaConfig(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2)
    )
    stranger = tmp_path / "stranger"
    save_adapter(stranger, text_prefix(small, base.tokenizer, "a b"), small, base_model="ada/small")
    with pytest.raises(StudioError) as caught:
        list(compare(base, [stranger], PROMPT, None, SHORT))
    assert caught.value.message.startswith(f"The adapter {stranger} cannot be used with the bundled model: ")
    assert "ada/small" in caught.value.hint


def test_compare_once_is_the_command_lines(base, adapters):
    answer = compare_once(ModelPart(), adapters, PROMPT, None, SHORT)
    *_, last = compare(base, adapters, PROMPT, None, SHORT)
    assert answer == last["done"]
