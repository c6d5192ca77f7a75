"""OpenAI's dialect, with the bundled model and adapters behind it."""

from __future__ import annotations

import json

import pytest
from fastapi.testclient import TestClient

from prefix_studio.data.tokens import prompt_ids
from prefix_studio.errors import StudioError
from prefix_studio.generation.engine import Row, Sampling
from prefix_studio.generation.text import complete
from prefix_studio.prefix.files import load_prefix
from prefix_studio.recipe import ModelPart
from prefix_studio.server.app import build_app
from prefix_studio.server.engine import Engine
from prefix_studio.server.names import GivenNames
from prefix_studio.server.openai import refusal_of
from prefix_studio.server.worker import Busy

PROMPT = "name: Ada"


@pytest.fixture(scope="module")
def adapter(text_adapter, tmp_path_factory):
    return text_adapter(tmp_path_factory.mktemp("served") / "cat", "The cat sat on the mat.")


@pytest.fixture(scope="module")
def client(adapter):
    engine = Engine()
    app = build_app(engine, GivenNames(ModelPart(), [adapter]), token=None)
    with TestClient(app, raise_server_exceptions=False) as client:
        yield client
    engine.worker.close()


def complete_text(client, **fields):
    return client.post("/v1/completions", json={"model": "bundled", "prompt": PROMPT, "temperature": 0, **fields})


def chat(client, **fields):
    messages = [{"role": "user", "content": "Hello"}]
    return client.post(
        "/v1/chat/completions",
        json={"model": "bundled", "messages": messages, "temperature": 0, "max_tokens": 6, **fields},
    )


def events(response) -> list:
    lines = [line.removeprefix("data: ") for line in response.text.split("\n\n") if line]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


def written_alone(bundled, prefix, max_new_tokens, prompt=PROMPT):
    model, tokenizer = bundled
    row = Row(prompt_ids(prompt, tokenizer), prefix, Sampling(max_new_tokens))
    return complete(model, tokenizer, [row])[0]


def test_models_are_the_base_and_the_adapters(client):
    listing = client.get("/v1/models").json()
    assert listing["object"] == "list"
    assert [(model["id"], model["parent"]) for model in listing["data"]] == [("bundled", None), ("cat", "bundled")]
    assert all(model["object"] == "model" for model in listing["data"])
    assert client.get("/v1/models/cat").json() == listing["data"][1]


def test_a_completion_is_what_the_model_writes(client, bundled, adapter):
    model, tokenizer = bundled
    for name, prefix in (("bundled", None), ("cat", load_prefix(adapter, model))):
        expected = written_alone(bundled, prefix, 8)
        answer = complete_text(client, model=name, max_tokens=8).json()
        assert answer["object"] == "text_completion"
        assert answer["model"] == name
        assert answer["choices"] == [
            {"index": 0, "text": expected.text, "logprobs": None, "finish_reason": expected.finish_reason}
        ]
        count = len(prompt_ids(PROMPT, tokenizer))
        assert answer["usage"] == {
            "prompt_tokens": count,
            "completion_tokens": expected.tokens,
            "total_tokens": count + expected.tokens,
        }


def test_several_prompts_are_several_choices(client, bundled):
    prompts = ["The river", PROMPT]
    answer = complete_text(client, prompt=prompts, max_tokens=5).json()
    assert [choice["index"] for choice in answer["choices"]] == [0, 1]
    expected = [written_alone(bundled, None, 5, prompt).text for prompt in prompts]
    assert [choice["text"] for choice in answer["choices"]] == expected


def test_a_stream_adds_up_to_the_whole(client):
    whole = complete_text(client, max_tokens=8).json()
    chunks = events(complete_text(client, max_tokens=8, stream=True, stream_options={"include_usage": True}))
    *pieces, last = chunks
    assert "".join(chunk["choices"][0]["text"] for chunk in pieces) == whole["choices"][0]["text"]
    assert pieces[-1]["choices"][0]["finish_reason"] == whole["choices"][0]["finish_reason"]
    assert all(chunk["usage"] is None for chunk in pieces)
    assert (last["choices"], last["usage"]) == ([], whole["usage"])
    assert len({chunk["id"] for chunk in chunks}) == 1


def test_a_chat_answers_as_the_assistant(client):
    answer = chat(client).json()
    assert answer["object"] == "chat.completion"
    message = answer["choices"][0]["message"]
    assert message["role"] == "assistant"
    assert answer["usage"]["completion_tokens"] <= 6

    first, *pieces, last = events(chat(client, stream=True))
    assert first["object"] == "chat.completion.chunk"
    assert first["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert "".join(piece["choices"][0]["delta"]["content"] for piece in pieces) == message["content"]
    assert last["choices"][0]["delta"] == {}
    assert last["choices"][0]["finish_reason"] == answer["choices"][0]["finish_reason"]


def test_chat_content_may_come_in_parts(client):
    parts = [{"type": "text", "text": "Hel"}, {"type": "text", "text": "lo"}]
    assert (
        chat(client, messages=[{"role": "user", "content": parts}]).json()["choices"] == chat(client).json()["choices"]
    )


def test_seeds_repeat_and_temperature_is_one_unless_told(client):
    def text(**fields):
        request = {"model": "bundled", "prompt": PROMPT, "max_tokens": 12, **fields}
        return client.post("/v1/completions", json=request).json()["choices"][0]["text"]

    assert text(seed=5) == text(seed=5)
    assert len({text() for _ in range(6)}) > 1
    assert text(temperature=0) == text(temperature=0)


def test_stop_strings_end_the_text(client):
    whole = complete_text(client, max_tokens=8).json()["choices"][0]["text"]
    stop = whole.strip()[1:3]
    choice = complete_text(client, max_tokens=8, stop=stop).json()["choices"][0]
    assert choice["text"] == whole[: whole.index(stop)]
    assert choice["finish_reason"] == "stop"


@pytest.mark.parametrize(
    ("fields", "status", "param", "message"),
    [
        ({"model": "gpt-9"}, 404, "model", "The model 'gpt-9' does not exist: GET /v1/models lists those that do."),
        ({"logprobs": 3}, 400, "body", "body: logprobs is not supported: leave it out."),
        ({"n": 2}, 400, "body", "body: n is not supported: leave it out."),
        ({"echo": True}, 400, "body", "body: echo is not supported: leave it out."),
        ({"temperture": 1}, 400, "temperture", "temperture: this server knows no such field."),
        ({"temperature": 3}, 400, "temperature", "temperature: Input should be less than or equal to 2."),
        ({"max_tokens": 0}, 400, "max_tokens", "max_tokens: Input should be greater than or equal to 1."),
        ({"prompt": None}, 400, "prompt", "prompt: Field required."),
        ({"prompt": [1, 2]}, 400, "prompt.0", "prompt.0: Input should be a valid string."),
        ({"stop": list("abcde")}, 400, "stop", "stop: List should have at most 4 items after validation, not 5."),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_refusals_have_openais_shape(client, fields, status, param, message):
    response = complete_text(client, **fields)
    assert response.status_code == status
    error = response.json()["error"]
    assert error == {
        "message": message,
        "type": "invalid_request_error",
        "param": param,
        "code": "model_not_found" if status == 404 else None,
    }


def test_a_prompt_longer_than_the_model_is_refused_before_the_stream(client, bundled):
    limit = bundled[0].config.max_position_embeddings
    for stream in (False, True):
        response = complete_text(client, prompt="river " * (limit + 1), stream=stream)
        assert response.status_code == 400
        assert f"the model's {limit} positions" in response.json()["error"]["message"]


def test_chat_refuses_what_is_not_text(client):
    image = [{"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}]
    for messages in ([], [{"role": "user", "content": image}], [{"role": "king", "content": "x"}], [{"content": "x"}]):
        response = chat(client, messages=messages)
        assert response.status_code == 400, messages
        assert response.json()["error"]["type"] == "invalid_request_error"


def test_neutral_values_of_unsupported_fields_are_fine(client):
    neutral = {"n": 1, "presence_penalty": 0.0, "logit_bias": {}, "user": "ada", "logprobs": None, "best_of": 1}
    assert complete_text(client, max_tokens=2, **neutral).status_code == 200


def test_unknown_paths_and_bad_json_are_errors_in_the_same_shape(client):
    assert client.get("/v1/nothing").json()["error"]["message"] == "Not Found: GET /v1/nothing"
    assert client.post("/v1/completions", content="{", headers={"Content-Type": "application/json"}).status_code == 400


def test_errors_keep_their_kind():
    assert refusal_of(Busy("full")).status == 429
    assert refusal_of(StudioError("no room", category="memory")).status == 503
    hidden = refusal_of(ValueError("secret detail"))
    assert hidden.status == 500
    assert "secret" not in json.dumps(hidden.body)


def test_a_key_is_asked_for_when_there_is_one(adapter):
    engine = Engine()
    app = build_app(engine, GivenNames(ModelPart(), [adapter]), token="s3cret")
    with TestClient(app) as client:
        refused = client.get("/v1/models", headers={"Authorization": "Bearer wrong"})
        assert refused.status_code == 401
        assert refused.json()["error"]["code"] == "invalid_api_key"
        assert client.get("/v1/models").status_code == 401
        assert client.get("/v1/models", headers={"Authorization": "Bearer s3cret"}).status_code == 200
        assert client.get("/health").status_code == 200
    engine.worker.close()
