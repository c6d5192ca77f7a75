"""What the Tune page says: the recipe in words, or what is wrong, beside its step."""

from __future__ import annotations

from dataclasses import replace

import pytest

from prefix_studio.errors import StudioError
from prefix_studio.models.catalogue import Entry
from prefix_studio.recipe import Recipe
from prefix_studio.ui import tune_view as view
from prefix_studio.ui.queueing import queue_run


@pytest.fixture
def recipe():
    return Recipe.from_fields({"data": {"source": "sample:restaurants"}})


@pytest.fixture
def values():
    return view.opening_values()


def test_a_good_form_is_said_in_words_yaml_and_a_command():
    summary = view.summarise(view.opening_values())
    assert Recipe.from_yaml(summary.yaml) == summary.recipe
    assert summary.command.endswith("--out restaurants")
    assert "virtual tokens" in summary.words
    assert not any(summary.notices.values())


def test_a_wrong_value_is_said_at_its_step_and_pointed_at_from_the_summary():
    summary = view.summarise(view.opening_values() | {"training.learning_rate": -1})
    assert summary.recipe is None
    assert "training.learning_rate: input should be greater than 0, not -1" in summary.notices[4]
    assert "Step 4 needs a look." in summary.notices[0]
    assert not summary.notices[1] + summary.notices[2] + summary.notices[3]


def test_the_sample_brings_its_templates_and_its_text():
    values = view.opening_values()
    assert values["name"] == "restaurants"
    assert "{{ mr }}" in values["data.prompt"]
    assert values["prefix.init"] == "text"
    assert view.sample_choices()[0][1] == "sample:restaurants"
    for _, source in view.sample_choices():
        view.values_for_sample(source)


def test_a_files_columns_are_guessed_into_the_form():
    mapping = {"format": "prompt-completion", "prompt": "{{ q }}", "completion": "{{ a }}", "messages": None}
    values = view.values_for_source({"mapping": mapping}, "/uploads/ab12/my rows.csv")
    assert values["name"] == "my rows"
    assert (values["data.prompt"], values["data.messages"]) == ("{{ q }}", "")


def test_each_question_answers_for_itself(studio, models, values):
    models.answers["preview"] = StudioError("Row 3 has no column q.", "Correct the template.", "data")
    columns, preview = view.data_preview(studio, values)
    assert "<code>q</code>" in columns
    assert "Row 3 has no column q." in preview
    models.answers["inspect"] = StudioError("rows.csv cannot be read.", category="data")
    assert view.data_preview(studio, values) == ("", view.error_notice(models.answers["inspect"]))
    models.answers["check"] = StudioError("There is no model x.", category="model")
    card, check = view.check_of(studio, values)
    assert "There is no model x." in card
    assert view.estimate_html(studio, values, check) == "", "no model, no figures"


def test_the_check_is_of_the_batch_and_the_length_that_are_chosen(studio, models, values):
    chosen = {"training.per_device_train_batch_size": 3, "data.max_length": 64, "data.source": " "}
    card, _ = view.check_of(studio, values | chosen)
    ((_, (asked,), _),) = models.asked
    assert (asked.training.per_device_train_batch_size, asked.data.max_length) == (3, 64)
    assert "3 rows of 64 tokens would take about 1.0 GB of memory; 8.0 GB are free, enough for 150." in card


def test_nothing_is_asked_about_a_wrong_value(studio, models, values):
    assert view.data_preview(studio, values | {"data.max_length": 1}) == ("", view.NOT_READABLE)
    assert view.check_of(studio, values | {"model.dtype": "int3"}) == ("", None)
    assert models.asked == []


def test_a_shared_page_says_why_it_reads_no_path(studio, models, values):
    shared = replace(studio, settings=replace(studio.settings, logins=(("ada", "secret"),)))
    assert "this studio is shared" in view.data_preview(shared, values | {"data.source": "/etc/passwd"})[1]
    assert "this studio is shared" in view.check_of(shared, values | {"model.id": "/srv/model"})[0]
    assert models.asked == []


def test_the_estimate_says_shares_time_and_memory(studio, values):
    shown = view.estimate_html(studio, values, view.check_of(studio, values)[1])
    for said in ("640", "1.0% of all", "1 min 35 s", "200 steps", "of 8.0 GB free here"):
        assert said in shown


def test_too_much_memory_is_said(studio, models, values):
    models.answers["check"] = models.answers["check"] | {"memory_available_bytes": 10**8}
    assert "more than the 100 MB free here" in view.estimate_html(studio, values, view.check_of(studio, values)[1])


def test_a_model_that_no_row_fits_is_not_loaded_to_be_measured(studio, models, values):
    models.answers["check"] = models.answers["check"] | {"largest_batch_size": 0}
    _, check = view.check_of(studio, values)
    assert "Choose a smaller model" in view.estimate_html(studio, values, check)
    assert [name for name, *_ in models.asked] == ["check"]


def test_models_say_whether_they_fit():
    entry = Entry("x", "X", 10**9, "MIT", "", "llama", size_mb=4000)
    assert [view.fit(entry, memory * 10**9) for memory in (2, 10, 100)] == [
        "too large for this machine",
        "a tight fit",
        "fits",
    ]


def test_what_cannot_work_is_refused_before_the_queue(studio, models, recipe):
    models.answers["check"] = models.answers["check"] | {"supported": False, "reason": "mamba has no attention."}
    with pytest.raises(StudioError, match=r"mamba has no attention\."):
        queue_run(studio, recipe, "local")
    assert studio.runs.list() == []


def test_pressing_start_twice_makes_one_run(studio, recipe):
    first = queue_run(studio, recipe, "local", key="k")
    assert queue_run(studio, recipe, "local", key="k") == first
    assert queue_run(studio, recipe, "local", key="other") != first
    assert len(studio.runs.list("local")) == 2
