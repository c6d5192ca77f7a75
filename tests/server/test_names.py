"""Names under which models are served."""

from __future__ import annotations

import pytest

from prefix_studio.errors import StudioError
from prefix_studio.recipe import ModelPart, Recipe
from prefix_studio.runs.table import RunTable
from prefix_studio.server.names import GivenNames, StudioNames, find


def named(names):
    return [served.name for served in names.all()]


def test_given_adapters_are_called_by_their_folder(tmp_path):
    model, cat = ModelPart(id="ada/tiny"), tmp_path / "cat"
    names = GivenNames(model, [cat])
    assert named(names) == ["ada/tiny", "cat"]
    assert find(names, "tiny").adapter is None
    assert find(names, "cat").adapter == cat
    assert find(names, str(cat)).name == "cat"
    assert find(names, "dog") is None


def test_adapters_of_one_folder_name_are_told_apart(tmp_path):
    names = GivenNames(ModelPart(), [tmp_path / "first" / "adapter", tmp_path / "second" / "adapter"])
    assert named(names) == ["bundled", "first/adapter", "second/adapter"]
    same = [tmp_path / "cat", tmp_path / "dog" / ".." / "cat"]
    with pytest.raises(StudioError, match=f"Two adapters would be served as '{tmp_path.name}/cat'"):
        GivenNames(ModelPart(), same)


def test_the_studio_offers_what_it_has_at_the_moment(home, text_adapter):
    names = StudioNames(home)
    assert named(names) == ["bundled"]
    table = RunTable(home)
    run_id = table.submit(Recipe.from_fields({"name": "cats", "data": {"source": "sample:restaurants"}}))
    text_adapter(home.runs / run_id / "adapter", "The cat sat.")
    assert named(names) == ["bundled"], "the run has not finished"

    claimed = table.claim("cpu")
    table.finish(run_id, claimed.attempt, "finished")
    assert named(names) == ["bundled", run_id]
    assert find(names, run_id).model == ModelPart()
    assert find(names, "cats").name == run_id
