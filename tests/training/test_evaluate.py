from __future__ import annotations

import csv
import json

import pytest

from prefix_studio.data.examples import Example
from prefix_studio.errors import StudioError
from prefix_studio.generation.engine import Row, Sampling
from prefix_studio.generation.text import complete
from prefix_studio.models.load import load_model, load_tokenizer
from prefix_studio.prefix.files import load_prefix
from prefix_studio.training.batch_size import BatchSize
from prefix_studio.training.evaluate import compare_outputs, evaluate_adapter, one_a_prompt, text_metrics


@pytest.fixture
def tuned(make_run):
    run = make_run("run")
    run.go()
    return run


def test_the_answer_has_the_agreed_shape_and_one_prediction_a_prompt(tuned, tmp_path):
    data = tmp_path / "data.csv"
    rows = [("a =>", " x"), ("a =>", " y"), ("b =>", " z")]
    with data.open("w", newline="") as file:
        csv.writer(file).writerows([("prompt", "completion"), *rows])
    told = []
    answer = evaluate_adapter(
        tuned.recipe.model, tuned.folder / "adapter", data, tuned.recipe, told.append, device="cpu"
    )
    assert list(answer) == ["rows", "base", "tuned", "predictions"]
    assert answer["rows"] == 3
    for version in ("base", "tuned"):
        assert list(answer[version]) == ["loss", "exact_match", "bleu"]
    assert [row["prompt"] for row in answer["predictions"]] == ["a =>", "b =>"]
    assert answer["predictions"][0]["references"] == [" x", " y"]
    assert told[-1] == 1
    assert json.loads(json.dumps(answer)) == answer


def test_the_losses_are_those_of_the_run(tuned, rows_file, make_recipe):
    # The training rows of a run that held nothing back are all rows of the file.
    answer = evaluate_adapter(tuned.recipe.model, tuned.folder / "adapter", rows_file, tuned.recipe, device="cpu")
    assert answer["rows"] == 24
    assert answer["tuned"]["loss"] < answer["base"]["loss"]


def test_texts_in_a_batch_are_those_that_each_row_writes_alone(tuned):
    model, tokenizer = load_model(tuned.recipe.model), load_tokenizer(tuned.recipe.model)
    prefix = load_prefix(tuned.folder / "adapter", model)
    examples = [Example(f"{'long ' * i}prompt {i} =>", " x", i, (" x",)) for i in (3, 1, 2)]
    size = BatchSize(tuned.recipe.training, "per_device_eval_batch_size")
    written = compare_outputs(model, tokenizer, prefix, examples, tuned.recipe, size)
    assert [row["prompt"] for row in written] == [example.prompt for example in examples]
    for row, example in zip(written, examples, strict=True):
        ids = tokenizer(example.prompt)["input_ids"]
        alone = [
            complete(model, tokenizer, [Row(ids, version, Sampling(max_new_tokens=4))])[0].text.strip()
            for version in (None, prefix)
        ]
        assert [row["base"], row["tuned"]] == alone


def test_metrics_take_several_references():
    written = [
        {"references": [" the cat sat down", " a cat sat there"], "base": "no", "tuned": "a cat sat there"},
        {"references": [" a dog ran far away"], "base": "no", "tuned": "a dog ran far away"},
    ]
    assert text_metrics(written, "tuned", ["exact_match", "bleu"]) == {"exact_match": 1.0, "bleu": pytest.approx(100)}
    assert text_metrics(written, "base", ["exact_match"]) == {"exact_match": 0.0}


def test_equal_prompts_are_asked_once():
    examples = [Example("a", "1", 1), Example("b", "2", 2), Example("a", "3", 3)]
    assert [example.row for example in one_a_prompt(examples)] == [1, 2]


def test_an_adapter_that_is_not_there_is_said(tuned, rows_file):
    with pytest.raises(StudioError, match="There is no adapter in"):
        evaluate_adapter(tuned.recipe.model, tuned.folder / "nothing", rows_file, tuned.recipe, device="cpu")
