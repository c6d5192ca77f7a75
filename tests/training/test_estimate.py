from __future__ import annotations

import time

import pytest

from prefix_studio.data.examples import load_examples
from prefix_studio.data.tokens import tokenize_all
from prefix_studio.models.check import check_model
from prefix_studio.models.load import load_model, load_tokenizer
from prefix_studio.training import estimate as module
from prefix_studio.training.estimate import START_SECONDS, estimate
from prefix_studio.training.pace import Pace


@pytest.fixture
def ask(make_recipe):
    def run(**parts):
        recipe = make_recipe(**parts)
        model, tokenizer = load_model(recipe.model), load_tokenizer(recipe.model)
        rows = tokenize_all(load_examples(recipe.data, tokenizer).train, tokenizer, recipe.data.max_length)
        return estimate(recipe, model, rows)

    return run


def test_it_says_steps_parameters_and_memory(ask):
    answer = ask()
    assert list(answer) == [
        "seconds",
        "steps",
        "tokens_per_step",
        "memory_bytes",
        "trainable_parameters",
        "all_parameters",
    ]
    assert answer["steps"] == 8
    assert answer["trainable_parameters"] == 4 * 2 * 2 * 2 * 8  # tokens, layers, keys and values, heads, width
    assert 4 * 10 < answer["tokens_per_step"] < 4 * 30


def test_the_memory_is_that_of_the_check_for_rows_as_long_as_the_longest(make_recipe):
    recipe = make_recipe(training={"gradient_checkpointing": True})
    model, tokenizer = load_model(recipe.model), load_tokenizer(recipe.model)
    rows = tokenize_all(load_examples(recipe.data, tokenizer).train, tokenizer, 64)
    answer = estimate(recipe, model, rows)
    checked = check_model(
        recipe.model,
        recipe.prefix,
        batch_size=recipe.training.per_device_train_batch_size,
        max_length=max(len(row.input_ids) for row in rows),
        gradient_checkpointing=True,
    )
    for name in ("memory_bytes", "trainable_parameters", "all_parameters"):
        assert answer[name] == checked[name]


def test_validation_rows_take_time(make_recipe):
    recipe = make_recipe(training={"max_steps": 500, "eval_steps": 2})
    model, tokenizer = load_model(recipe.model), load_tokenizer(recipe.model)
    rows = tokenize_all(load_examples(recipe.data, tokenizer).train, tokenizer, 64)
    none, many = (estimate(recipe, model, rows, validation_rows=count)["seconds"] for count in (0, 10_000))
    assert many > 2 * none


def test_the_length_may_follow_the_text(ask, tiny_folder):
    answer = ask(prefix={"num_virtual_tokens": None, "init_text": "one two three four five six"})
    tokenizer = load_tokenizer_of(tiny_folder)
    assert answer["trainable_parameters"] == len(tokenizer("one two three four five six")["input_ids"]) * 64


def load_tokenizer_of(folder):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)


def test_more_steps_take_longer_in_proportion(ask):
    short, long = (ask(training={"max_steps": steps, "eval_steps": steps}) for steps in (100, 1000))
    ratio = (long["seconds"] - START_SECONDS) / (short["seconds"] - START_SECONDS)
    assert 3 < ratio < 30  # 10, measured on a machine with other work


def test_it_comes_near_to_what_a_run_takes(ask, make_run):
    training = {"max_steps": 60, "eval_steps": 20}
    expected = ask(training=training)["seconds"] - START_SECONDS
    run = make_run("run", training=training)
    began = time.perf_counter()
    run.go()
    took = time.perf_counter() - began
    assert expected / 5 < took < expected * 5


def test_a_slow_model_is_asked_for_one_short_row_only(ask, monkeypatch):
    monkeypatch.setattr(module, "PATIENCE_SECONDS", 0.0)
    seen = []
    learn = module.learn
    monkeypatch.setattr(module, "learn", lambda learner, batches: seen.append(batches) or learn(learner, batches))
    assert ask()["seconds"] > START_SECONDS
    assert [len(batches[0]) for batches in seen] == [1, 1, 1]


def test_the_models_weights_are_left_alone(make_recipe):
    recipe = make_recipe()
    model, tokenizer = load_model(recipe.model), load_tokenizer(recipe.model)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    rows = tokenize_all(load_examples(recipe.data, tokenizer).train, tokenizer, 64)
    estimate(recipe, model, rows)
    assert all(tensor.equal(before[name]) for name, tensor in model.state_dict().items())
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_the_pace_forgets_the_first_step_and_counts_evaluations_and_the_end():
    pace = Pace(evaluation=2.0, closing=3.0)
    pace.step(10.0, 100)
    assert pace.seconds_per_step == 10
    for _ in range(4):
        pace.step(1.0, 100)
    assert pace.tokens_per_s == 100
    assert pace.eta(steps=5, evaluations=2) == 5 + 3 + 2 * 2  # evaluations by rule
    pace.evaluation_seconds = 7.0
    assert pace.eta(steps=5, evaluations=2) == 5 + 3 + 2 * 7  # and measured
