"""The preview is what training does: same tokens, same mask, same drops; and cells leave as strings."""

from __future__ import annotations

import json

import pytest

from prefix_studio.data.examples import load_examples
from prefix_studio.data.preview import inspect_source, preview, token_texts
from prefix_studio.data.tokens import tokenize_all
from prefix_studio.recipe import Recipe


def recipe(source, **data) -> Recipe:
    return Recipe.from_fields({"data": {"source": source, **data}})


def test_a_sample_as_the_bundled_model_sees_it(bundled):
    tokenizer = bundled[1]
    seen = preview(recipe("sample:restaurants"), tokenizer, count=3)
    assert set(seen["report"]) == {"rows_read", "rows_used", "dropped", "warnings"}
    assert (seen["report"]["rows_read"], seen["report"]["rows_used"]) == (500, 500)
    assert (seen["train"], seen["validation"], len(seen["examples"])) == (400, 100, 3)
    for example in seen["examples"]:
        text = "".join(token["text"] for token in example["tokens"])
        assert example["prompt"] + example["completion"] in text
        learned = "".join(token["text"] for token in example["tokens"] if token["learned"])
        assert learned == example["completion"] + tokenizer.eos_token
    json.dumps(seen)


def test_preview_shows_the_rows_that_training_takes(write, make_tokenizer):
    tokenizer = make_tokenizer()
    rows = [{"q": f"hello {number}", "a": "x" * number} for number in range(60)]
    plan = recipe(write("rows.jsonl", rows), max_length=40, validation=0.2)
    seen = preview(plan, tokenizer, count=100)
    split = load_examples(plan.data)
    assert [example["row"] for example in seen["examples"]] == [
        row.row for row in tokenize_all(split.train, tokenizer, 40)
    ]
    report = seen["report"]
    assert report["rows_used"] == seen["train"] + seen["validation"]
    assert report["rows_read"] == report["rows_used"] + len(report["dropped"])
    assert {"row": 1, "why": "empty completion"} in report["dropped"]
    assert seen["lengths"]["longest"] <= 40


@pytest.mark.parametrize("kind", ["byte level", "metaspace"])
@pytest.mark.parametrize(
    "text", ["naïve café 😀 serves 日本語 food", "plain words here", "é", "tail 😀", "a\n\n  b\tc  "]
)
def test_token_texts_join_to_the_text(make_tokenizer, kind, text):
    tokenizer = make_tokenizer(kind, adds_bos=False)
    for repeated in (text, f"{text} " * 20):
        ids = tokenizer(repeated)["input_ids"]
        texts = token_texts(ids, tokenizer)
        assert len(texts) == len(ids)
        assert "".join(texts) == tokenizer.decode(ids)
        assert "\ufffd" not in "".join(texts)


def test_a_chat_in_the_preview(write, make_tokenizer, templates):
    chat = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "fine"}]
    tokenizer = make_tokenizer(chat_template=templates["chatml"])
    seen = preview(recipe(write("rows.jsonl", [{"messages": chat}] * 12), validation=0), tokenizer, count=1)
    (example,) = seen["examples"]
    assert (example["prompt"], example["completion"]) == ("hello", "fine")
    assert "".join(token["text"] for token in example["tokens"] if token["learned"]) == "fine<|im_end|>"


def test_an_encoder_decoder_shows_input_and_target(write, make_tokenizer):
    plan = recipe(write("rows.jsonl", [{"q": "hello", "a": "fine"}] * 12), validation=0)
    seen = preview(plan, make_tokenizer(), count=1, encoder_decoder=True)
    tokens = seen["examples"][0]["tokens"]
    assert "".join(token["text"] for token in tokens if not token["learned"]) == "hello"
    assert "".join(token["text"] for token in tokens if token["learned"]) == "fine</s>"


def test_a_missing_end_token_is_told(write, make_tokenizer):
    plan = recipe(write("rows.jsonl", [{"q": str(number), "a": "fine"} for number in range(20)]))
    assert any("no end token" in text for text in preview(plan, make_tokenizer(eos=None))["report"]["warnings"])


def test_inspecting_a_source_gives_strings_only(write):
    leak = {"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}}
    rows = [{"text": "a", "label": leak, "n": None}, *({"text": "b", "label": 1.5, "n": 2} for _ in range(30))]
    seen = inspect_source(write("rows.jsonl", rows))
    assert seen["columns"] == ["text", "label", "n"]
    assert seen["row_count"] == 31
    assert len(seen["rows"]) == 20
    assert seen["rows"][:2] == [["a", json.dumps(leak), ""], ["b", "1.5", "2"]]
    assert all(isinstance(cell, str) for row in seen["rows"] for cell in row)
    assert seen["mapping"]["prompt"] == "{{ text }}"
