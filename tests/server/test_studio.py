"""What the page asks, over HTTP and in one process: right answers, own folders only, errors as sentences."""

from __future__ import annotations

import json

import pytest
from fastapi.testclient import TestClient

from prefix_studio.server.app import build_app
from prefix_studio.server.engine import Engine
from prefix_studio.server.names import StudioNames

RECIPE = {"data": {"source": "sample:restaurants"}}


@pytest.fixture(scope="module")
def engine():
    engine = Engine()
    yield engine
    engine.worker.close()


@pytest.fixture
def client(home, engine):
    app = build_app(engine, StudioNames(home), token=home.token(), studio=home)
    with TestClient(app, headers={"Authorization": f"Bearer {home.token()}"}) as client:
        yield client


def problem(response) -> dict:
    assert response.status_code == 422
    return response.json()["error"]


def test_compare_streams_pieces_and_then_the_result(client, home, text_adapter):
    adapter = str(text_adapter(home.adapters / "cat", "The cat sat on the mat."))
    body = {"adapters": [adapter], "prompt": "name: Ada", "init_text": "Once", "max_new_tokens": 5}
    *pieces, last = [json.loads(line) for line in client.post("/studio/compare", json=body).text.splitlines()]
    assert {piece["row"] for piece in pieces} <= {"base", "init_text", adapter}
    texts = {"base": last["done"]["base"], "init_text": last["done"]["init_text"], adapter: last["done"]["adapters"][0]}
    for row, answer in texts.items():
        assert "".join(piece["text"] for piece in pieces if piece["row"] == row) == answer["text"]


def test_adapters_elsewhere_are_refused(client, home, text_adapter, tmp_path):
    elsewhere = text_adapter(tmp_path / "elsewhere", "The cat sat on the mat.")
    link = home.adapters / "link"
    link.symlink_to(elsewhere)
    for path in (elsewhere, link, home.adapters / ".." / ".." / "elsewhere"):
        error = problem(client.post("/studio/compare", json={"adapters": [str(path)], "prompt": "x"}))
        assert error["message"] == f"The adapter {path} is not one of this studio's."


def test_check_preview_inspect_and_prompts(client):
    check = client.post("/studio/check", json={"recipe": {"prefix": {"num_virtual_tokens": 4}}}).json()
    assert check["supported"] is True
    assert check["trainable_parameters"] == sum(
        4 * 2 * h * w for h, w in (layer["key_shape"] for layer in check["layers"])
    )
    assert check["memory_available_bytes"] > 0

    seen = client.post("/studio/preview", json={"recipe": RECIPE}).json()
    first = seen["examples"][0]
    assert first["completion"].strip() in "".join(token["text"] for token in first["tokens"] if token["learned"])

    inside = client.post("/studio/inspect", json={"source": "sample:restaurants"}).json()
    assert inside["row_count"] == 400

    prompts = client.post("/studio/validation-prompts", json={"recipe": RECIPE, "count": 3}).json()
    assert len({prompt["prompt"] for prompt in prompts}) == 3
    assert all(prompt["reference"] and prompt["messages"] is None for prompt in prompts)


def test_prompts_of_a_chat_come_with_their_messages(client):
    chat = {"data": {"source": "sample:replies", "format": "chat"}}
    prompt = client.post("/studio/validation-prompts", json={"recipe": chat, "count": 1}).json()[0]
    assert prompt["messages"][-1]["role"] == "user"
    answer = client.post("/studio/compare", json={"messages": prompt["messages"], "max_new_tokens": 2})
    assert json.loads(answer.text.splitlines()[-1])["done"]["prompt"] == prompt["messages"][-1]["content"]


def test_estimate_speaks_of_this_recipe(client):
    recipe = {**RECIPE, "training": {"max_steps": 7}}
    estimate = client.post("/studio/estimate", json={"recipe": recipe}).json()
    assert estimate["steps"] == 7
    assert estimate["seconds"] > 0
    assert estimate["all_parameters"] > estimate["trainable_parameters"] > 0


@pytest.mark.parametrize(
    ("path", "body", "message"),
    [
        ("check", {"recipe": {"modl": 3}}, "The recipe is not valid: modl is not a field (did you mean model?)."),
        ("check", {"recipe": {"model": {"id": "./nowhere"}}}, "The model folder ./nowhere does not exist."),
        ("preview", {"recipe": {}}, "The recipe is not valid: data is missing."),
        ("preview", {}, "recipe: Field required."),
        ("compare", {}, "There is neither a prompt nor messages."),
        (
            "compare",
            {"messages": [{"role": "king"}]},
            "The chat cannot be read: message 1 has the unknown role 'king'.",
        ),
        ("compare", {"prompt": "x", "temperature": -1}, "temperature is -1.0, but must be 0 or more."),
        ("compare", {"prompt": "x", "colour": "red"}, "colour: this server knows no such field."),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(client, path, body, message):
    assert problem(client.post(f"/studio/{path}", json=body))["message"] == message


def test_without_the_token_nothing_is_told(client):
    for path in ("/studio/inspect", "/v1/models"):
        response = client.post(path, json={"source": "sample:restaurants"}, headers={"Authorization": "Bearer no"})
        assert response.status_code == 401
