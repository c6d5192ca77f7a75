"""The queue by itself: what people may do to a run, in which state, and what the supervisor may write."""

from __future__ import annotations

import sqlite3
from concurrent.futures import ThreadPoolExecutor

import pytest

from prefix_studio.errors import StudioError
from prefix_studio.recipe import Recipe
from prefix_studio.runs.table import RunTable


@pytest.fixture
def table(home) -> RunTable:
    return RunTable(home)


@pytest.fixture
def rows(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("prompt,completion\na,b\n")
    return path


@pytest.fixture
def recipe(rows) -> Recipe:
    return Recipe.from_fields({"data": {"source": str(rows)}})


def test_a_submitted_run_is_on_disk_before_it_is_acknowledged(table, recipe):
    run_id = table.submit(recipe)

    run = RunTable(table.settings).get(run_id)  # another process' view
    assert (run.state, run.position, run.name, run.owner) == ("queued", 1, "rows", "local")
    assert Recipe.from_yaml((run.folder / "recipe.yaml").read_text()) == recipe
    assert Recipe.from_yaml(run.recipe_yaml) == recipe


def test_the_database_is_written_ahead_and_synced_at_every_commit(table):
    assert table._db.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
    assert table._db.execute("PRAGMA synchronous").fetchone()[0] == 2
    assert table._db.execute("PRAGMA user_version").fetchone()[0] == 1


def test_a_newer_database_is_refused_in_words(home):
    RunTable(home).list()
    with sqlite3.connect(home.database) as db:
        db.execute("PRAGMA user_version = 7")

    with pytest.raises(StudioError, match=r"version 7; this program knows version 1.*update this one"):
        RunTable(home).list()


def test_a_file_that_is_no_database_is_refused_in_words(home):
    home.database.write_text("not a database " * 100)

    with pytest.raises(StudioError, match="cannot be opened: file is not a database"):
        RunTable(home).list()


def test_the_same_key_is_the_same_run_however_many_submit_it_at_once(table, recipe):
    with ThreadPoolExecutor(8) as pool:
        ids = list(pool.map(lambda _: table.submit(recipe, key="once"), range(16)))

    assert len(set(ids)) == 1
    assert [run.id for run in table.list()] == ids[:1]
    assert [path.name for path in table.settings.runs.iterdir()] == ids[:1]


def test_a_key_is_its_owners_own(table, recipe):
    assert table.submit(recipe, owner="ada", key="k") != table.submit(recipe, owner="grace", key="k")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"source": "/nowhere/rows.csv"}, "data.source: there is no file /nowhere/rows.csv."),
        ({"source": "sample:nonesuch"}, "data.source: there is no sample 'nonesuch'."),
        ({"source": "sample:../.."}, "data.source: there is no sample '../..'."),
        ({"source": "hub:a/b", "validation": "gone.csv"}, "data.validation: there is no file gone.csv."),
    ],
)
def test_a_recipe_whose_data_is_not_there_is_refused(table, fields, message):
    with pytest.raises(StudioError) as refused:
        table.submit(Recipe.from_fields({"data": fields}))

    assert refused.value.message == message
    assert table.list() == []
    assert list(table.settings.runs.iterdir()) == []


def test_runs_are_claimed_in_order_one_a_device(table, recipe):
    first, second, third = (table.submit(recipe) for _ in range(3))

    assert table.claim("cuda:0").id == first
    assert table.claim("cuda:0") is None
    assert table.claim("cuda:1").id == second
    assert [table.get(run).position for run in (first, second, third)] == [None, None, 1]


def test_many_claimers_never_share_a_device(table, recipe):
    for _ in range(20):
        table.submit(recipe)

    with ThreadPoolExecutor(8) as pool:
        claimed = [run for run in pool.map(lambda n: table.claim(f"cuda:{n % 3}"), range(40)) if run]

    assert len(claimed) == 3
    assert {run.device for run in claimed} == {"cuda:0", "cuda:1", "cuda:2"}


def test_the_table_itself_refuses_a_device_twice(table, recipe):
    table.submit(recipe)
    other = table.submit(recipe)
    table.claim("cpu")

    with pytest.raises(sqlite3.IntegrityError):
        table._db.execute("UPDATE runs SET state = 'running', device = 'cpu' WHERE id = ?", (other,))


def test_only_the_latest_attempt_writes_and_only_once(table, recipe):
    run_id = table.submit(recipe)
    assert table.claim("cpu").attempt == 1
    assert table.requeue(run_id, 1, None)
    assert table.claim("cpu").attempt == 2

    assert not table.register(run_id, 1, 100, 1.0)
    assert not table.finish(run_id, 1, "finished")
    assert table.register(run_id, 2, 200, 2.0)
    assert table.finish(run_id, 2, "finished")
    assert not table.finish(run_id, 2, "failed", "late")
    assert table.crash(run_id, 2, -1, "late", "internal") is None
    assert (table.get(run_id).state, table.get(run_id).error) == ("finished", "")


def test_an_attempt_that_registers_at_the_last_moment_is_not_queued_again(table, recipe):
    run_id = table.submit(recipe)
    seen = table.claim("cpu")
    table.register(run_id, 1, 100, 1.0)

    assert not table.requeue(run_id, 1, seen.pid)
    assert table.get(run_id).state == "running"


def test_an_interrupted_run_goes_before_those_that_wait(table, recipe):
    first, second = table.submit(recipe), table.submit(recipe)
    table.claim("cpu")
    table.requeue(first, 1, None)

    assert [table.get(run).position for run in (first, second)] == [1, 2]


def test_three_crashes_without_a_newer_checkpoint_fail_with_the_real_reason(table, recipe):
    run_id = table.submit(recipe)
    states = []
    for checkpoint in (10, 10, 20, 20, 20):  # the third got further, so the count began again
        attempt = table.claim("cpu").attempt
        states.append(table.crash(run_id, attempt, checkpoint, "Killed.", "memory"))

    assert states == ["queued", "queued", "queued", "queued", "failed"]
    assert (table.get(run_id).error, table.get(run_id).category) == ("Killed.", "memory")


def test_cancel_takes_a_waiting_run_at_once_and_asks_a_running_one(table, recipe):
    running, waiting = table.submit(recipe), table.submit(recipe)
    table.claim("cpu")

    assert table.cancel(waiting).state == "cancelled"
    asked = table.cancel(running)
    assert (asked.state, asked.request, (asked.folder / "request").read_text()) == ("running", "cancel", "cancel")
    assert table.stop(running, 1) == "cancelled"


def test_a_request_never_reaches_a_later_attempt(table, recipe):
    run_id = table.submit(recipe)
    table.claim("cpu")
    table.pause(run_id)
    assert table.stop(run_id, 1) == "paused"
    table.resume(run_id)

    run = table.claim("cpu")
    assert (run.attempt, run.request, (run.folder / "request").exists()) == (2, "", False)


def test_a_request_that_comes_while_the_attempt_dies_is_not_lost(table, recipe):
    run_id = table.submit(recipe)
    table.claim("cpu")
    table.pause(run_id)

    assert not table.requeue(run_id, 1, None)
    assert table.crash(run_id, 1, -1, "Killed.", "memory") is None
    assert table.stop(run_id, 1) == "paused"


def test_a_cancel_outranks_a_pause(table, recipe):
    run_id = table.submit(recipe)
    table.claim("cpu")
    table.pause(run_id)
    table.cancel(run_id)
    table.pause(run_id)

    assert table.stop(run_id, 1) == "cancelled"


def test_resume_takes_back_a_pause_that_has_not_happened_yet(table, recipe):
    run_id = table.submit(recipe)
    table.claim("cpu")
    table.pause(run_id)

    assert table.resume(run_id).request == ""
    assert table.stop(run_id, 1) is None


def test_pause_holds_a_waiting_run_back_and_resume_sends_it_behind_the_others(table, recipe):
    first, second = table.submit(recipe), table.submit(recipe)

    assert table.pause(first).state == "paused"
    assert table.get(second).position == 1
    assert table.resume(first).position == 2


def test_retry_wipes_the_failure_and_queues_again(table, recipe):
    run_id = table.submit(recipe)
    table.claim("cpu")
    table.finish(run_id, 1, "failed", "Out of memory.", "memory")

    run = table.retry(run_id)
    assert (run.state, run.error, run.category, run.crashes, run.ended) == ("queued", "", "", 0, None)


@pytest.mark.parametrize("act", ["cancel", "pause", "resume", "retry"])
def test_a_finished_run_is_left_alone_and_says_so(table, recipe, act):
    run_id = table.submit(recipe)
    table.claim("cpu")
    table.finish(run_id, 1, "finished")

    with pytest.raises(StudioError, match="The run rows is finished and cannot be"):
        getattr(table, act)(run_id)


def test_delete_removes_run_and_folder_but_not_under_a_running_attempt(table, recipe):
    run_id = table.submit(recipe)
    folder = table.claim("cpu").folder
    with pytest.raises(StudioError, match="is running and cannot be deleted. Cancel it first."):
        table.delete(run_id)
    assert folder.is_dir()

    table.finish(run_id, 1, "finished")
    table.delete(run_id)
    assert not folder.exists()
    with pytest.raises(StudioError, match="There is no run"):
        table.get(run_id)


@pytest.mark.parametrize("act", ["get", "cancel", "pause", "resume", "retry", "delete"])
def test_another_persons_run_does_not_exist(table, recipe, act):
    run_id = table.submit(recipe, owner="ada")

    with pytest.raises(StudioError, match=f"There is no run '{run_id}'"):
        getattr(table, act)(run_id, owner="grace")
    assert table.list("grace") == []
    assert [run.state for run in table.list("ada")] == [run.state for run in table.list()] == ["queued"]


def test_a_run_can_be_renamed_but_not_to_nothing(table, recipe):
    run_id = table.submit(recipe)

    assert table.rename(run_id, "  best\n one ").name == "best one"
    with pytest.raises(StudioError, match="The name is empty"):
        table.rename(run_id, "   ")
