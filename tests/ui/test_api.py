"""The HTTP API as gradio_client sees it, on the real app: real queue, real training, real model process."""

from __future__ import annotations

import time
import zipfile

import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError

from tests.browser.running_app import running_app

SECONDS = 300
NAMES = {"submit", "run", "runs", "cancel", "pause", "resume", "compare", "export", "import_adapter"}
KEYS = {"state", "step", "total_steps", "loss", "eval_loss", "eta_s", "error"}
RECIPE = """
name: api
data: {source: "sample:restaurants", prompt: "{{ q }}", completion: "{{ a }}", validation: 2}
prefix: {num_virtual_tokens: 4, init: random}
training: {max_steps: %d, per_device_train_batch_size: 2}
evaluation: {samples: 1, max_new_tokens: 4}
"""


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    with running_app(tmp_path_factory.mktemp("api") / "home") as app:
        yield Client(app.url, verbose=False)


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    file = tmp_path_factory.mktemp("rows") / "rows.csv"
    file.write_text("q,a\n" + "".join(f"count {number} =>, {number} and {number + 1}\n" for number in range(12)))
    return handle_file(str(file))


@pytest.fixture(scope="module")
def finished(client, rows):
    """A run submitted with a file, and finished."""
    run_id = client.predict(RECIPE % 3, rows, api_name="/submit")["run_id"]
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        run = client.predict(run_id, api_name="/run")
        if run["state"] in ("finished", "failed"):
            break
        time.sleep(0.5)
    assert run["state"] == "finished", run
    return run_id


def test_only_the_documented_names_are_public(client):
    names = {name.lstrip("/") for name in client.view_api(return_format="dict")["named_endpoints"]}
    assert names == NAMES


def test_a_run_goes_from_a_file_to_figures(client, finished):
    run = client.predict(finished, api_name="/run")
    assert run.keys() == KEYS
    assert (run["step"], run["total_steps"], run["eta_s"], run["error"]) == (3, 3, None, "")
    assert run["loss"] > 0
    assert run["eval_loss"] > 0
    (listed,) = (row for row in client.predict(api_name="/runs") if row["run_id"] == finished)
    assert listed == {"run_id": finished, "name": "api", **run}


def test_answers_come_from_one_batch(client, finished):
    answer = client.predict([finished], "count 5 =>", "Question: ", 6, api_name="/compare")
    assert answer.keys() == {"prompt", "base", "init_text", "adapters"}
    assert answer["prompt"] == "count 5 =>"
    assert [adapter["adapter"] for adapter in answer["adapters"]] == [finished]
    for part in (answer["base"], answer["init_text"], *answer["adapters"]):
        assert 0 < part["tokens"] <= 6
    again = client.predict([finished], "count 5 =>", api_name="/compare", max_new_tokens=6)
    assert again["init_text"] is None
    assert again["base"] == answer["base"], "greedy, and a row does not depend on its neighbours"


def test_an_adapter_goes_out_as_a_zip_and_comes_back(client, finished):
    path = client.predict(finished, "peft", api_name="/export")
    with zipfile.ZipFile(path) as archive:
        names = {name.rpartition("/")[2] for name in archive.namelist()}
    assert {"adapter_config.json", "adapter_model.safetensors", "README.md"} <= names
    adapter_id = client.predict(handle_file(path), api_name="/import_adapter")["adapter_id"]
    answer = client.predict([finished, adapter_id], "count 5 =>", "", 6, api_name="/compare")
    mine, imported = answer["adapters"]
    assert (mine["text"], imported["adapter"]) == (imported["text"], adapter_id)


def test_a_run_is_paused_resumed_and_cancelled(client, rows):
    run_id = client.predict(RECIPE % 100_000, rows, api_name="/submit")["run_id"]
    assert client.predict(run_id, api_name="/pause")["state"] in ("paused", "running")
    assert client.predict(run_id, api_name="/resume")["state"] in ("queued", "running")
    client.predict(run_id, api_name="/cancel")
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline and client.predict(run_id, api_name="/run")["state"] != "cancelled":
        time.sleep(0.5)
    assert client.predict(run_id, api_name="/run")["state"] == "cancelled"


@pytest.mark.parametrize(
    ("endpoint", "arguments", "sentence"),
    [
        ("run", ["nope"], "There is no run 'nope'. Look at the Runs tab for those that are there."),
        ("submit", ["data: {sauce: x}"], "data.sauce is not a field (did you mean source?)"),
        ("submit", ["data: ["], "The recipe is not YAML: line 1, column 8"),
        ("submit", ["data: {source: 'sample:nothing'}"], "nothing"),
        ("submit", ["data: {source: /nowhere/rows.csv}"], "/nowhere/rows.csv"),
        ("compare", [["nope"], "hi"], "There is no adapter 'nope'."),
        ("compare", [[], "hi"], "No adapter is chosen."),
        ("export", ["nope", "gguf"], "There is no export format 'gguf'. Known: peft."),
    ],
)
def test_what_cannot_be_done_is_one_sentence(client, endpoint, arguments, sentence):
    with pytest.raises(AppError) as raised:
        client.predict(*arguments, api_name=f"/{endpoint}")
    assert sentence in str(raised.value)
    assert "Traceback" not in str(raised.value)
