"""Numbers and recipes in words."""

from __future__ import annotations

import pytest

from prefix_studio.recipe import Recipe
from prefix_studio.ui import words


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (None, "–"),
        (float("nan"), "–"),
        (0.42, "0.4 s"),
        (9.7, "10 s"),
        (59.6, "1 min 00 s"),
        (95.2, "1 min 35 s"),
        (3725, "1 h 02 min"),
        (200_000, "2 d 7 h"),
    ],
)
def test_durations(seconds, said):
    assert words.say_duration(seconds) == said


@pytest.mark.parametrize(
    ("count", "said"),
    [
        (None, "–"),
        (0, "0 B"),
        (999, "999 B"),
        (1536, "1.5 kB"),
        (999_600, "1.0 MB"),
        (720e6, "720 MB"),
        (2e12, "2.0 TB"),
    ],
)
def test_bytes(count, said):
    assert words.say_bytes(count) == said


@pytest.mark.parametrize(
    ("count", "said"),
    [(65_536, "65,536"), (134_515_008, "135 million"), (3_280_000, "3.28 million"), (2.5e9, "2.50 billion")],
)
def test_counts(count, said):
    assert words.say_count(count) == said


def test_shares():
    assert words.say_share(15, 1000) == "1.5%"
    assert words.say_share(7, 100_000) == "0.007%"
    assert words.say_share(1, 0) == "–"


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({}, "In front of every prompt stand 20 virtual tokens that start from the text “Question:”."),
        ({"prefix": {"init": "zero"}}, "that start from zeros."),
        ({"prefix": {"num_virtual_tokens": None}}, "and are as many as its tokens."),
        ({"prefix": {"prefix_projection": True}}, "learned through a small network (projection)."),
        ({"prefix": {"use_chat_template": True}}, "the text “Question:”, written as a system message."),
        ({"prefix": {"num_frozen_tokens": 1}}, "the text “Question:”; the first stays as it starts."),
        ({"prefix": {"num_frozen_tokens": 2}}, "; the first 2 stay as they start."),
        ({"prefix": {"submodules": "all"}}, "In encoder, decoder and between the two stand 20 virtual tokens"),
        (
            {"prefix": {"num_virtual_tokens": None, "use_chat_template": True, "prefix_projection": True}},
            "written as a system message, and are as many as its tokens, learned through a small network",
        ),
        ({"model": {"id": "gpt2", "quantization": "4bit"}}, "GPT-2 stays as it is, squeezed to 4 bits; not one"),
        ({"model": {"id": "gpt2", "device_map": "auto"}}, "GPT-2 stays as it is, spread over all GPUs; not one"),
        ({"training": {"loss_average": "example"}}, "Every example counts alike, however long."),
        (
            {"training": {"label_smoothing_factor": 0.1, "gradient_checkpointing": True}},
            "Labels are smoothed by 0.1. Memory is saved at the price of time.",
        ),
        ({"training": {"auto_find_batch_size": False}}, "The run stops should memory run out."),
        ({"training": {"num_train_epochs": 1}}, "They are trained for 1 pass over the rows, 16 rows at a time"),
        ({"training": {"max_steps": 1500}}, "They are trained for 1,500 steps"),
        ({"data": {"source": "/home/me/rows.csv"}}, "It sees the rows of rows.csv, with 10% held back"),
        ({"data": {"source": "r.csv", "validation": "/x/held.csv"}}, "checked against held.csv"),
        ({"data": {"source": "r.csv", "validation": 0}}, "with none held back"),
        ({"data": {"source": "sample:restaurants"}}, "checked on rows that the sample holds back"),
    ],
)
def test_a_recipe_in_words(fields, said):
    recipe = Recipe.from_fields({"model": {"id": "gpt2"}, "data": {"source": "rows.csv"}, **fields})
    assert said in " ".join(words.say_recipe(recipe, "GPT-2"))


def test_what_is_as_usual_is_not_told():
    recipe = Recipe.from_fields({"model": {"id": "gpt2"}, "data": {"source": "rows.csv"}})
    assert len(words.say_recipe(recipe, "GPT-2")) == 4, "a sentence a step"


def test_the_command_survives_any_name():
    recipe = Recipe.from_fields({"name": "a; rm -rf ~", "data": {"source": "rows.csv"}})
    assert words.say_command(recipe) == "python -m prefix_studio tune recipe.yaml --out a--rm--rf"


def test_how_long_ago():
    assert words.say_ago(1000, now=1030) == "just now"
    assert words.say_ago(1000, now=1000 + 7200) == "2 h ago"
    assert words.say_ago(None) == "–"
