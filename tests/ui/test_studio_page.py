"""What a recipe may read where the page is shared, and who a request belongs to."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest

from prefix_studio.errors import StudioError
from prefix_studio.recipe import Recipe
from prefix_studio.runs.uploads import store_upload
from prefix_studio.ui.studio import owner_of


def recipe(source="sample:restaurants", model="bundled", **data):
    return Recipe.from_fields({"model": {"id": model}, "data": {"source": source, **data}})


@pytest.fixture
def shared(studio):
    return replace(studio, settings=replace(studio.settings, logins=(("ada", "secret"),)))


def test_on_ones_own_machine_any_file_may_be_read(studio):
    assert studio.permitted(recipe("/etc/hostname")).data.source == "/etc/hostname"


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        (recipe("/etc/passwd"), "data.source"),
        (recipe("rows.csv"), "data.source"),
        (recipe("~/rows.csv"), "data.source"),
        (recipe(validation="/etc/passwd"), "data.validation"),
        (recipe(model="/srv/models/secret"), "model.id"),
        (recipe(model="../secret"), "model.id"),
        (recipe(model="a/b/c"), "model.id"),
    ],
)
def test_a_shared_page_reads_no_paths_of_the_server(shared, asked, field):
    with pytest.raises(StudioError, match=field):
        shared.permitted(asked)


def test_a_shared_page_reads_uploads_samples_and_the_hub(shared, tmp_path):
    (tmp_path / "rows.csv").write_text("q,a\n1,2\n")
    upload = str(store_upload(shared.settings, tmp_path / "rows.csv"))
    for source in (upload, "sample:restaurants", "hub:me/rows"):
        assert shared.permitted(recipe(source, validation=source)).data.source == source
    assert shared.permitted(recipe(model="HuggingFaceTB/SmolLM2-135M"))
    with pytest.raises(StudioError):
        shared.permitted(recipe(f"{shared.settings.uploads}/../studio.db"))


def test_a_space_is_shared(studio):
    assert replace(studio, settings=replace(studio.settings, place="space")).shared
    assert not studio.shared


def test_requests_belong_to_logins():
    assert owner_of(SimpleNamespace(username="ada")) == "ada"
    assert owner_of(SimpleNamespace(username=None)) == "local"
    assert owner_of(None) == "local"
