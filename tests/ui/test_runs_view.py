"""The Runs tab's view: one owner's queue, the chosen run, and only what is new."""

from __future__ import annotations

import json

from prefix_studio.recipe import Recipe, TrainingPart
from prefix_studio.training.batch_size import BatchSize
from prefix_studio.ui.runs_view import NO_RUNS, changes, look


def submit(studio, owner="local", name=""):
    return studio.runs.submit(Recipe.from_fields({"name": name, "data": {"source": "sample:restaurants"}}), owner=owner)


def test_an_empty_queue_says_what_to_do_next(studio):
    view = look(studio, "local", "")
    assert view.list_html == NO_RUNS
    assert "press Start" in view.list_html
    assert view.actions == ()


def test_the_newest_run_is_shown_unless_another_is_chosen(studio):
    first, second = submit(studio, name="first"), submit(studio, name="second")
    assert look(studio, "local", "").chosen == second
    assert look(studio, "local", first).chosen == first
    assert look(studio, "local", "gone").chosen == second


def test_a_run_of_another_login_does_not_exist(studio):
    theirs, mine = submit(studio, "grace", "theirs"), submit(studio, "ada", "mine")
    view = look(studio, "ada", theirs)
    assert view.chosen == mine
    assert "theirs" not in view.list_html
    assert theirs not in view.list_html


def test_actions_follow_the_state(studio):
    run = submit(studio)
    assert look(studio, "local", run).actions == ("cancel", "pause")
    studio.runs.pause(run)
    assert look(studio, "local", run).actions == ("resume", "cancel", "delete")
    studio.runs.cancel(run)
    assert look(studio, "local", run).actions == ("retry", "delete")
    studio.runs.retry(run)
    attempt = studio.runs.claim("cpu").attempt
    studio.runs.pause(run)
    assert look(studio, "local", run).actions == ("resume", "cancel"), "asked to pause, not paused yet"
    studio.runs.finish(run, attempt, "finished")
    assert look(studio, "local", run).actions == ("play", "download", "delete")


def test_a_failed_run_shows_why_in_the_list_and_in_full(studio):
    run = submit(studio)
    studio.runs.finish(run, studio.runs.claim("cpu").attempt, "failed", "Out of memory at step 3.", "memory")
    view = look(studio, "local", run)
    assert "memory" in view.list_html
    assert "Out of memory at step 3." in view.head_html


def test_a_batch_that_was_halved_is_said_in_the_runs_own_words(studio):
    run = submit(studio)
    size = BatchSize(TrainingPart(per_device_train_batch_size=16), "per_device_train_batch_size")
    size.halve()
    (studio.runs.claim("cpu").folder / "progress.jsonl").write_text(json.dumps(size.event()) + "\n")
    said = look(studio, "local", run).head_html
    assert "Memory is too small for 16 rows at once: from here on 8 at a time go through the model." in said


def test_a_tick_sends_only_what_changed(studio):
    run = submit(studio)
    row = studio.runs.claim("cpu")
    news, marks = changes(look(studio, "local", run), {})
    assert news.keys() == marks.keys(), "at first everything"
    news, marks = changes(look(studio, "local", run), marks)
    assert news == {}
    step = {"event": "step", "step": 1, "total_steps": 4, "loss": 2.0, "tokens_per_s": 10, "eta_s": 3}
    (row.folder / "progress.jsonl").write_text(json.dumps(step) + "\n")
    news, marks = changes(look(studio, "local", run), marks)
    assert news.keys() == {"list_html", "head_html"}, "one point is no curve yet"
    assert "1 of 4" in news["head_html"]
