"""What the page serves and to whom: logins, nobody else's runs, no file of the home or the project, no huge upload."""

from __future__ import annotations

import httpx
import pytest
from gradio_client import Client
from gradio_client.exceptions import AppError

from prefix_studio.recipe import Recipe
from prefix_studio.runs.table import RunTable
from prefix_studio.settings import MEGABYTE, PROJECT
from tests.browser.running_app import running_app

LOGINS = {"ada": "one-secret", "grace": "other-secret"}


@pytest.fixture(scope="module")
def app(tmp_path_factory):
    logins = ",".join(f"{name}:{password}" for name, password in LOGINS.items())
    home = tmp_path_factory.mktemp("serving") / "home"
    with running_app(home, PREFIX_STUDIO_AUTH=logins, PREFIX_STUDIO_MAX_UPLOAD_MB="1") as app:
        yield app


@pytest.fixture(scope="module")
def ada(app):
    with httpx.Client(base_url=app.url, timeout=30) as browser:
        answer = browser.post("/login", data={"username": "ada", "password": LOGINS["ada"]})
        assert answer.status_code == 200
        yield browser


def test_without_a_login_nothing_is_served(app):
    assert httpx.get(f"{app.url}/config").status_code == 401
    assert httpx.post(f"{app.url}/gradio_api/call/runs", json={"data": []}).status_code == 401
    assert httpx.post(f"{app.url}/login", data={"username": "ada", "password": "wrong"}).status_code == 400


def test_no_file_of_the_home_or_the_project_is_served(app, ada):
    app.settings.token()
    for path in (app.settings.home / "token", app.settings.database, PROJECT / "app.py", "/etc/passwd"):
        assert ada.get(f"/gradio_api/file={path}").status_code == 403, path


def test_an_upload_over_the_limit_is_refused(ada):
    answer = ada.post("/gradio_api/upload", files={"files": ("big.csv", b"x" * (2 * MEGABYTE))})
    assert answer.status_code == 413


def test_a_run_belongs_to_its_login(app):
    recipe = Recipe.from_fields({"name": "hers", "data": {"source": "sample:restaurants"}})
    table = RunTable(app.settings)
    run_id = table.submit(recipe, owner="ada")
    table.cancel(run_id)
    ada, grace = (Client(app.url, auth=(name, password), verbose=False) for name, password in LOGINS.items())
    assert [run["name"] for run in ada.predict(api_name="/runs")] == ["hers"]
    assert grace.predict(api_name="/runs") == []
    for endpoint in ("run", "cancel", "pause", "resume"):
        with pytest.raises(AppError, match="There is no run"):
            grace.predict(run_id, api_name=f"/{endpoint}")


def test_a_shared_studio_reads_no_paths_of_the_server(app):
    client = Client(app.url, auth=("ada", LOGINS["ada"]), verbose=False)
    with pytest.raises(AppError, match="is a path on the server, and this studio is shared"):
        client.predict("data: {source: /etc/passwd}", api_name="/submit")
