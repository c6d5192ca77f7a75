"""Several processes of a launcher on one run: the first keeps the folder, the others write nothing of their own."""

from __future__ import annotations

from pathlib import Path

import pytest

from prefix_studio.recipe import Recipe
from prefix_studio.runs.attempt import run_recipe
from prefix_studio.runs.folder import Exit
from prefix_studio.runs.locks import hold

RECIPE = Recipe.from_fields({"data": {"source": "rows.csv"}})


@pytest.fixture
def second(monkeypatch):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")


def train(recipe, folder, report, should_stop, *, device) -> str:
    report({"event": "state", "state": "training"})
    assert should_stop() is None
    return "finished"


def test_one_that_is_not_the_first_trains_along_and_leaves_the_folder_to_it(tmp_path, second):
    with hold(tmp_path / ".lock"):
        assert run_recipe(RECIPE, tmp_path, train=train) == "finished"
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_a_finished_run_is_finished_for_all_of_them(tmp_path, second):
    (tmp_path / "adapter").mkdir()
    Exit("finished", 1).write(tmp_path)

    def never(*_: object, **__: object) -> str:
        raise AssertionError("the first one is not there to train with")

    assert run_recipe(RECIPE, tmp_path, train=never) == "finished"


def test_the_first_one_keeps_the_folder(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert run_recipe(RECIPE, tmp_path, train=train) == "finished"
    assert {"exit.json", "log.txt", "progress.jsonl", "recipe.yaml"} <= {path.name for path in tmp_path.iterdir()}
