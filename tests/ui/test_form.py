"""The form's values: the way to a recipe and back, and where an error belongs."""

from __future__ import annotations

import pytest

from prefix_studio.errors import StudioError
from prefix_studio.recipe import Recipe
from prefix_studio.ui.form import (
    AS_LONG_AS_TEXT,
    LEARNING_RATE,
    checkable_part,
    defaults_for,
    first_values,
    learning_rate_after,
    readable_part,
    recipe_of,
    restored,
    step_of,
    values_of,
    visible_fields,
)


@pytest.mark.parametrize(
    "fields",
    [
        {"data": {"source": "rows.csv"}},
        {"data": {"source": "rows.csv", "validation": 40, "prompt": "{{ q }}"}, "prefix": {"init": "zero"}},
        {"data": {"source": "chat.jsonl", "format": "chat", "messages": "turns", "validation": "held.jsonl"}},
        {"data": {"source": "rows.csv"}, "prefix": {"num_virtual_tokens": None, "init_text": "Question: "}},
        {
            "name": "mine",
            "model": {"id": "gpt2", "revision": "main", "quantization": "4bit", "device_map": "auto"},
            "data": {"source": "hub:me/rows"},
            "prefix": {
                "num_virtual_tokens": 300,
                "prefix_projection": True,
                "encoder_hidden_size": 640,
                "num_frozen_tokens": 1,
                "use_chat_template": True,
                "submodules": "all",
            },
            "training": {
                "max_steps": 20,
                "learning_rate": 0.001,
                "label_smoothing_factor": 0.1,
                "loss_average": "example",
                "auto_find_batch_size": False,
            },
            "evaluation": {"metrics": ["loss", "bleu"], "samples": 0},
        },
    ],
    ids=["defaults", "counts", "chat", "as long as the text", "everything"],
)
def test_a_recipe_comes_back_from_the_form_unchanged(fields):
    recipe = Recipe.from_fields(fields)
    assert recipe_of(values_of(recipe)) == recipe


def test_the_form_opens_with_the_bundled_model_and_a_sample():
    recipe = recipe_of(first_values())
    assert recipe.model.id == "bundled"
    assert recipe.data.source == "sample:restaurants"


def test_what_another_choice_rules_out_is_left_out():
    values = first_values()
    values |= {"prefix.encoder_hidden_size": 512, "data.messages": "turns"}
    recipe = recipe_of(values)
    assert recipe.prefix.encoder_hidden_size is None, "projection is off"
    assert recipe.data.messages is None, "the rows are no chat"
    recipe = recipe_of(values | {"prefix.init": "random", AS_LONG_AS_TEXT: True})
    assert recipe.prefix.num_virtual_tokens == values["prefix.num_virtual_tokens"], "there is no text to follow"


def test_a_draft_is_laid_over_the_opening_values_without_unknown_fields():
    values = restored({"name": "kept", "training.learning_rate": "not a number", "gone.field": 1}, first_values())
    assert values["name"] == "kept"
    assert values["training.learning_rate"] == "not a number", "a wrong value is still the person's draft"
    assert "gone.field" not in values


def test_another_model_brings_its_own_defaults():
    small, large = defaults_for("bundled"), defaults_for("gpt2")
    assert small.keys() == large.keys()
    assert small[LEARNING_RATE] > large[LEARNING_RATE]
    projected = defaults_for("gpt2", {"prefix.prefix_projection": True})
    assert projected[LEARNING_RATE] < large[LEARNING_RATE], "a projection wants smaller steps"


@pytest.mark.parametrize("model", ["bundled", "gpt2"])
def test_the_learning_rate_follows_the_projection_until_it_is_the_persons_own(model):
    plain = first_values() | {"model.id": model, **defaults_for(model)}
    rate = learning_rate_after("prefix.prefix_projection", plain | {"prefix.prefix_projection": True})
    projected = plain | {"prefix.prefix_projection": True, LEARNING_RATE: rate}
    assert rate == recipe_of(plain | {"prefix.prefix_projection": True, LEARNING_RATE: None}).training.learning_rate
    assert rate != plain[LEARNING_RATE]
    back = learning_rate_after("prefix.prefix_projection", projected | {"prefix.prefix_projection": False})
    assert back == plain[LEARNING_RATE]
    for own in (0.0123, rate):
        values = plain | {"prefix.init": "zero", LEARNING_RATE: own}
        assert learning_rate_after("prefix.init", values) == own, "not what another start would have filled in"


def test_a_cleared_learning_rate_is_the_default():
    assert recipe_of(first_values() | {LEARNING_RATE: None}) == recipe_of(first_values())


@pytest.mark.parametrize(
    ("change", "step", "said"),
    [
        ({"model.dtype": "int3"}, 1, "model.dtype"),
        ({"data.source": "  "}, 2, "data.source: no data is chosen."),
        ({"data.max_length": 2}, 2, "data.max_length"),
        ({"data.validation": "-1"}, 2, "must be a share between 0 and 1, a number of rows, or a path"),
        ({"prefix.init_text": " "}, 3, "init_text is empty"),
        ({"training.learning_rate": -1}, 4, "training.learning_rate: input should be greater than 0, not -1"),
        ({"training.label_smoothing_factor": 1}, 4, "training.label_smoothing_factor"),
        ({"prefix.num_frozen_tokens": 48}, 3, "leaves none of the 48 virtual tokens to learn"),
        ({"evaluation.samples": -1}, 4, "evaluation.samples"),
    ],
)
def test_a_wrong_value_is_named_at_its_step(change, step, said):
    with pytest.raises(StudioError) as raised:
        recipe_of(first_values() | change)
    assert said in raised.value.message
    assert step_of(raised.value) == step


def test_an_error_without_a_field_goes_by_its_category():
    assert step_of(StudioError("The model does not fit.", category="memory")) == 4
    assert step_of(StudioError("Nothing is reachable.", category="network")) == 1
    assert step_of(StudioError("Something else.")) == 0


def test_fields_are_shown_where_they_mean_something():
    values = first_values()
    assert not visible_fields(values)["data.messages"]
    text = visible_fields(values | {"data.format": "text", "prefix.init": "zero"})
    assert not text["data.prompt"]
    assert text["data.completion"]
    assert not text["prefix.init_text"]
    assert not text["prefix.use_chat_template"]
    assert not text["prefix.encoder_hidden_size"]
    assert visible_fields(values | {"prefix.prefix_projection": True})["prefix.encoder_hidden_size"]
    chat = visible_fields(values | {"data.format": "chat", "data.messages": "turns"})
    assert chat == chat | {"data.messages": True, "data.prompt": False, "data.completion": False}


def test_the_model_can_be_checked_while_other_steps_are_wrong():
    values = first_values() | {"model.id": "gpt2", "data.source": "", "data.max_length": 64}
    checked = checkable_part(values | {"training.per_device_train_batch_size": 3})
    assert (checked.model.id, checked.training.per_device_train_batch_size, checked.data.max_length) == ("gpt2", 3, 64)
    checked = checkable_part(values | {"training.seed": -1, "prefix.num_virtual_tokens": 7})
    assert checked.prefix.num_virtual_tokens == 7
    assert checkable_part(values | {"prefix.init_text": ""}).model.id == "gpt2"
    with pytest.raises(StudioError, match=r"model\.dtype"):
        checkable_part(values | {"model.dtype": "int3"})


def test_rows_stay_readable_while_a_training_value_is_wrong():
    wrong = first_values() | {"training.learning_rate": -1, "evaluation.samples": -1}
    assert readable_part(wrong).data.source == "sample:restaurants"
    with pytest.raises(StudioError, match=r"data\.max_length"):
        readable_part(wrong | {"data.max_length": 1})
